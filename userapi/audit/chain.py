"""The MACs of the chain of seals: over rows, seals, the head and chain starts.

Pure functions, without database or clock. The key is not stored in the database, so write access
to the database is not enough to create a MAC.
"""

import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row

from userapi.clock import rfc3339
from userapi.infrastructure.encryption import key_id

# The columns that the MAC of every row covers, in order.
_ALWAYS_SEALED = (
    "id",
    "occurred_at",
    "action",
    "outcome",
    "actor_id",
    "actor_username",
    "actor_type",
    "session_id",
    "target_type",
    "target_id",
    "ip_address",
    "user_agent",
    "correlation_id",
    "changes",
    "details",
)
# Later columns: the MAC covers those with a value, together with their names, so the MAC of a row
# from before such a column stays the same.
_SEALED_WITH_A_VALUE = ("key_id",)
SEALED_COLUMNS = (*_ALWAYS_SEALED, *_SEALED_WITH_A_VALUE)
ROW_LABEL = "audit-row:1"
SEAL_LABEL = "audit-seal:1"
HEAD_LABEL = "audit-head:1"
START_LABEL = "audit-chain-start:1"

# The time of an entry whose row was removed before it was sealed: pruning never explains it.
NEVER = datetime.max.replace(tzinfo=UTC)

_ENTRY = struct.Struct(">16sq16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_MAC = bytes(16)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a seal stores of one row."""

    id: UUID
    occurred_at: datetime
    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the chain begins and ends. Seals up to `cut_number` were deleted with their rows."""

    number: int = 0
    rows_sealed: int = 0
    seal_mac: str = ""
    cut_number: int = 0
    cut_rows: int = 0
    cut_mac: str = ""
    pruned_before: datetime | None = None
    pruned_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStart:
    """Where `flask audit anchor` began a new chain, and why."""

    number: int
    started_at: datetime
    reason: str
    former_mac: str
    lost_keys: str
    key_id: str


class Chain:
    """Computes the MACs, with keys derived from one secret."""

    def __init__(self, secret: str) -> None:
        self.key_id = key_id(secret)
        root = hmac.digest(secret.encode(), b"audit-seals", "sha256")
        self._row_key = hmac.digest(root, ROW_LABEL.encode(), "sha256")
        self._seal_key = hmac.digest(root, SEAL_LABEL.encode(), "sha256")
        self._head_key = hmac.digest(root, HEAD_LABEL.encode(), "sha256")
        self._start_key = hmac.digest(root, START_LABEL.encode(), "sha256")

    def entry(self, row: Row[Any]) -> Entry:
        """Return the entry of a row, which has all of SEALED_COLUMNS."""
        values = [getattr(row, name) for name in _ALWAYS_SEALED]
        values[1] = rfc3339(row.occurred_at)
        for name in _SEALED_WITH_A_VALUE:
            if getattr(row, name) is not None:
                values += [name, getattr(row, name)]
        # Sorted keys: PostgreSQL does not preserve the order of a document's members.
        text = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
        return Entry(row.id, row.occurred_at, hmac.digest(self._row_key, text, "sha256")[:16])

    def missing_entry(self, row_id: UUID) -> Entry:
        """Return the entry for a row that was removed before it was sealed."""
        return Entry(row_id, NEVER, _NO_MAC)

    def seal_mac(
        self, *, number: int, sealed_at: datetime, previous_mac: str, entries: bytes
    ) -> str:
        """Return the MAC of a seal: over the previous MAC and all its rows, in order."""
        head = orjson.dumps([number, rfc3339(sealed_at), previous_mac, len(entries)])
        return hmac.digest(self._seal_key, head + b"\0" + entries, "sha256").hex()

    def made(self, seal: Row[Any]) -> bool:
        """Return whether a seal has the MAC that this chain computes for it."""
        mac = self.seal_mac(
            number=seal.number,
            sealed_at=seal.sealed_at,
            previous_mac=seal.previous_mac,
            entries=seal.entries,
        )
        return hmac.compare_digest(mac, seal.mac)

    def start_mac(self, start: ChainStart) -> str:
        """Return the MAC of the beginning of a chain."""
        values = asdict(start) | {"started_at": rfc3339(start.started_at)}
        return hmac.digest(self._start_key, orjson.dumps(values), "sha256").hex()

    def head_mac(self, head: Head) -> str:
        """Return the MAC of the head."""
        return hmac.digest(self._head_key, orjson.dumps(asdict(head)), "sha256").hex()


def pack(entries: Sequence[Entry]) -> bytes:
    """Return entries as a seal stores them."""
    return b"".join(
        _ENTRY.pack(entry.id.bytes, _microseconds(entry.occurred_at), entry.mac)
        for entry in entries
    )


def unpack(stored: bytes) -> Iterator[Entry]:
    """Return the entries of a seal. An incomplete entry at the end is dropped."""
    whole = len(stored) - len(stored) % _ENTRY.size
    for raw, moment, mac in _ENTRY.iter_unpack(stored[:whole]):
        try:
            occurred_at = _EPOCH + timedelta(microseconds=moment)
        except OverflowError:
            occurred_at = NEVER  # Not written by this code: its seal does not verify.
        yield Entry(UUID(bytes=raw), occurred_at, mac)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
