"""Reading seals in the order of the chain, with the head and the chain starts as of each batch."""

import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from userapi.audit.chain import Chain, ChainStart, Head
from userapi.audit.findings import FindingKind, Findings
from userapi.audit.head import SealKeyMissing, SealsBroken, genuine_head
from userapi.audit.models import AuditChainStart, AuditSeal, AuditSealHead
from userapi.audit.seal_keys import SealKeys
from userapi.infrastructure.database import patient_reading, snapshot, table_of

SEALS_PER_READ = 20

_seals = table_of(AuditSeal)
_head = table_of(AuditSealHead)
_starts = table_of(AuditChainStart)


class SealReader:
    """Reads seals in batches. `head` and `starts` are those at the time of the last batch."""

    def __init__(self, keys: SealKeys, findings: Findings) -> None:
        self._keys = keys
        self._findings = findings
        self._last = -1
        # The chain of each key id; None if the key is not configured.
        self._chains: dict[str | None, Chain | None] = {}
        self._forged_starts: set[int] = set()
        self.head: Head | None = None
        # Where new chains began, by the number of their first seal.
        self.starts: dict[int, ChainStart] = {}

    def next_seals(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """Return the next batch of seals, and read the head and the chain starts with it."""
        following = query.where(_seals.c.number > self._last).order_by(_seals.c.number)
        with snapshot(seconds=None) as connection:
            self._read_starts(connection)
            self.head = self._genuine_head(connection)
            seals = connection.execute(following.limit(SEALS_PER_READ)).all()
        if seals:
            self._last = seals[-1].number
        return seals

    def chain_of(self, key_id: str | None) -> Chain | None:
        """Return the chain of a key id, or None if the key is not configured."""
        if key_id not in self._chains:
            with patient_reading() as connection:
                self._chains[key_id] = self._keys.of_seal(connection, key_id)
        return self._chains[key_id]

    def is_lost(self, key_id: str, number: int) -> bool:
        """Return whether a new chain began after this seal because its key was lost."""
        return any(
            number < start.number and key_id in start.lost_keys.split()
            for start in self.starts.values()
        )

    def pruned_before(self) -> datetime | None:
        """Return the current limit before which rows are pruned."""
        with patient_reading() as connection:
            head = self._genuine_head(connection)
        return head.pruned_before if head else None

    def _genuine_head(self, connection: Connection) -> Head | None:
        row = connection.execute(select(_head)).one_or_none()
        if row is None:
            self._findings.add_head(FindingKind.HEAD_REMOVED)
            return None
        try:
            return genuine_head(self._keys, connection, row)
        except SealKeyMissing as exc:
            self._findings.add_missing_key(exc.key_id, seal=row.number)
        except SealsBroken:
            self._findings.add_head(FindingKind.HEAD_ALTERED)
        return None

    def _read_starts(self, connection: Connection) -> None:
        for row in connection.execute(select(_starts).order_by(_starts.c.number)):
            if row.number in self.starts or row.number in self._forged_starts:
                continue
            start = ChainStart(
                **{name: getattr(row, name) for name in ChainStart.__dataclass_fields__}
            )
            chain = self._keys.named(start.key_id)
            if chain is None:
                self._findings.add_missing_key(start.key_id, seal=start.number)
            elif not hmac.compare_digest(row.mac, chain.start_mac(start)):
                self._forged_starts.add(start.number)
                self._findings.add(FindingKind.CHAIN_START_ALTERED, seal=start.number)
                continue
            self.starts[start.number] = start
