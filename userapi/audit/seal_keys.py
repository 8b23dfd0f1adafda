"""The keys of the audit seals: the current one, which seals, and previous ones, which verify.

Each seal names its key by a fingerprint, so a missing key is reported as such and not as an
altered log. Seals of early releases name no key: theirs is found by trying all.
"""

import hmac
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Row, select
from sqlalchemy.orm import Session

from userapi.audit.chain import Chain, Head
from userapi.audit.models import AuditChainStart, AuditSeal
from userapi.infrastructure.database import table_of
from userapi.infrastructure.encryption import derive

# The name for the key of seals that do not name theirs.
UNNAMED = "unnamed"
SEALS_TRIED = 20

_seals = table_of(AuditSeal)
_starts = table_of(AuditChainStart)


class SealKeys:
    """All configured keys of seals, as chains."""

    def __init__(self, current: str, *, previous: Sequence[str] = ()) -> None:
        self.current = Chain(current)
        self._chains = {chain.key_id: chain for chain in map(Chain, (*previous, current))}

    def named(self, key_id: str) -> Chain | None:
        """Return the chain of a key, or None if the key is not configured."""
        return self._chains.get(key_id)

    def of_seal(self, connection: Connection | Session, key_id: str | None) -> Chain | None:
        """Return the chain of a seal or head with this key id, or None."""
        return self._of_unnamed_seals(connection) if key_id is None else self.named(key_id)

    def fitting(self, head: Head, mac: str) -> Chain | None:
        """Return the chain that computes this MAC for a head that does not name its key."""
        return next(
            (c for c in self._chains.values() if hmac.compare_digest(c.head_mac(head), mac)), None
        )

    def missing(self, connection: Connection | Session) -> list[str]:
        """Return the keys that seals need and that are neither configured nor recorded as lost."""
        needed = list(_key_ids(connection))
        lost = set(lost_keys(connection))
        missing = [k for k in needed if k not in self._chains and k not in lost]
        if UNNAMED not in lost and _has_unnamed_seals(connection):
            if self._of_unnamed_seals(connection) is None:
                missing.append(UNNAMED)
        return missing

    def _of_unnamed_seals(self, connection: Connection | Session) -> Chain | None:
        """Return the chain of the seals without a key id: all of them have the same.

        Several seals are tried from both ends, so that one altered seal does not hide the key.
        """
        query = select(_seals).where(_seals.c.key_id.is_(None)).limit(SEALS_TRIED)
        for order in (_seals.c.number, _seals.c.number.desc()):
            for seal in connection.execute(query.order_by(order)):
                chain = self._that_made(seal)
                if chain is not None:
                    return chain
        return None

    def _that_made(self, seal: Row[tuple[object, ...]]) -> Chain | None:
        return next((chain for chain in self._chains.values() if chain.made(seal)), None)


def seal_keys(
    audit_seal_key: str,
    *,
    previous: Sequence[str],
    encryption_keys: Sequence[str],
    secret_key: str,
) -> SealKeys:
    """Return the key that seals, and those that verify.

    Without AUDIT_SEAL_KEY the key is derived from ENCRYPTION_KEY. Early releases used SECRET_KEY:
    if it is unchanged, their seals verify.
    """
    derived = [derive(key.encode(), "audit-seal").hex() for key in encryption_keys]
    return SealKeys(audit_seal_key or derived[0], previous=(*previous, *derived, secret_key))


def lost_keys(connection: Connection | Session) -> Iterable[str]:
    """Return the keys that `flask audit anchor` has recorded as lost."""
    for keys in connection.execute(select(_starts.c.lost_keys)).scalars():
        yield from keys.split()


def _key_ids(connection: Connection | Session) -> Iterable[str]:
    """Return the keys that seals name, by one index lookup for each."""
    query = select(_seals.c.key_id).order_by(_seals.c.key_id).limit(1)
    key_id = connection.execute(query.where(_seals.c.key_id.is_not(None))).scalar()
    while key_id is not None:
        yield key_id
        key_id = connection.execute(query.where(_seals.c.key_id > key_id)).scalar()


def _has_unnamed_seals(connection: Connection | Session) -> bool:
    query = select(_seals.c.number).where(_seals.c.key_id.is_(None)).limit(1)
    return connection.execute(query).first() is not None
