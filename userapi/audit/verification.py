"""Verifying the audit trail against its chain of seals; `userapi.audit.seals` says what that shows.

Everything is read in one snapshot, so that rows which come, are sealed or pruned meanwhile do not
matter. The cost is that of reading all rows once; memory stays bounded.
"""

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, Table, exists, func, select

from userapi.audit.chain import Chain, ChainStart, Entry, Head, unpack
from userapi.audit.models import (
    AuditChainStart,
    AuditLog,
    AuditSeal,
    AuditSealHead,
    AuditUnsealed,
)
from userapi.audit.seal_keys import UNNAMED, SealKeys
from userapi.audit.seals import SealKeyMissing, SealsBroken, genuine_head, sealed_columns
from userapi.database import snapshot

SEALS_PER_READ = 20
IDS_PER_READ = 20_000
IDS_IN_MEMORY = 1_000_000

_logs: Table = AuditLog.__table__  # type: ignore[assignment]
_unsealed: Table = AuditUnsealed.__table__  # type: ignore[assignment]
_seals: Table = AuditSeal.__table__  # type: ignore[assignment]
_head: Table = AuditSealHead.__table__  # type: ignore[assignment]
_starts: Table = AuditChainStart.__table__  # type: ignore[assignment]


class FindingKind(StrEnum):
    """What can be wrong."""

    ANCHOR_MISMATCH = "anchor_mismatch"
    CHAIN_START_ALTERED = "chain_start_altered"
    HEAD_ALTERED = "head_altered"
    HEAD_REMOVED = "head_removed"
    KEY_MISSING = "key_missing"
    ROW_ALTERED = "row_altered"
    ROW_REMOVED = "row_removed"
    ROW_UNACCOUNTED = "row_unaccounted"
    SEAL_ALTERED = "seal_altered"
    SEAL_REMOVED = "seal_removed"
    SEAL_UNKNOWN = "seal_unknown"


EXPLANATIONS = {
    FindingKind.ANCHOR_MISMATCH: "the chain is not the one that the anchor was taken from",
    FindingKind.CHAIN_START_ALTERED: "the record of a new chain was altered or forged",
    FindingKind.HEAD_ALTERED: "the head of the chain was altered",
    FindingKind.HEAD_REMOVED: "the head of the chain was removed",
    FindingKind.KEY_MISSING: "sealed with a key that is not here",
    FindingKind.ROW_ALTERED: "the row was altered after it was sealed",
    FindingKind.ROW_REMOVED: "the row was removed, and not by pruning",
    FindingKind.ROW_UNACCOUNTED: "the row is in no seal and does not wait for one",
    FindingKind.SEAL_ALTERED: "the seal was altered, forged or moved",
    FindingKind.SEAL_REMOVED: "the seal was removed",
    FindingKind.SEAL_UNKNOWN: "the head knows of no such seal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where."""

    kind: FindingKind
    seal: int | None = None
    row_id: UUID | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        places = []
        if self.row_id is not None:
            places.append(f"row {self.row_id}")
        if self.seal is not None:
            places.append(f"seal {self.seal}")
        where = ", ".join(places) or "chain"
        which = f" (key {self.key_id})" if self.key_id else ""
        return f"{where}: {EXPLANATIONS[self.kind]}{which}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A seal as it was noted outside of the database."""

    seal: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at. `head` is the anchor to note for the next time.

    `starts` are the places where `flask audit anchor` began a new chain. `unchecked` seals were
    made with a key that is not here.
    """

    seals: int
    unchecked: int
    starts: tuple[ChainStart, ...]
    rows: int
    waiting: int
    pruned: int
    findings: int
    head: Anchor


Report = Callable[[Finding], object]


class AuditVerification:
    """Compares rows with seals, and seals with one another and their head."""

    def __init__(self, *, keys: SealKeys) -> None:
        self._keys = keys

    def verify(self, report: Report, *, anchor: Anchor | None = None) -> Verified:
        """Report everything that is wrong with the trail, and return what was looked at."""
        with snapshot() as connection:
            return _Check(connection, self._keys, report).whole_trail(anchor)

    def verify_before(self, moment: datetime, report: Report) -> Verified:
        """Do the same for the seals that hold rows from before `moment`, and no others."""
        with snapshot() as connection:
            return _Check(connection, self._keys, report).seals_from_before(moment)


class _Check:
    """One verification, in one snapshot."""

    def __init__(self, connection: Connection, keys: SealKeys, report: Report) -> None:
        self._connection = connection
        self._keys = keys
        self._report = report
        self._findings = 0
        self._seals = 0
        self._unchecked = 0
        self._rows = 0
        # The chain of each key id, None where the key is not here; and the keys reported so far.
        self._chains: dict[str | None, Chain | None] = {}
        self._reported_keys: set[str] = set()
        self._starts = self._genuine_starts()
        self._head = self._genuine_head()

    def whole_trail(self, anchor: Anchor | None) -> Verified:
        self._follow_chain()
        if anchor is not None:
            self._compare(anchor)
        self._account_for_rows()
        return self._verified()

    def seals_from_before(self, moment: datetime) -> Verified:
        for seal in self._read_seals(select(_seals).where(_seals.c.earliest_at < moment)):
            self._check_seal(seal)
        return self._verified()

    def _find(
        self,
        kind: FindingKind,
        *,
        seal: int | None = None,
        row: UUID | None = None,
        key_id: str | None = None,
    ) -> None:
        self._findings += 1
        self._report(Finding(kind=kind, seal=seal, row_id=row, key_id=key_id))

    def _find_missing_key(self, key_id: str, *, seal: int | None = None) -> None:
        """Report a key once, however many seals were made with it."""
        if key_id not in self._reported_keys:
            self._reported_keys.add(key_id)
            self._find(FindingKind.KEY_MISSING, seal=seal, key_id=key_id)

    def _verified(self) -> Verified:
        head = self._head or Head()
        return Verified(
            seals=self._seals,
            unchecked=self._unchecked,
            starts=tuple(self._starts.values()),
            rows=self._rows,
            waiting=self._connection.execute(
                select(func.count()).select_from(_unsealed)
            ).scalar_one(),
            pruned=head.pruned_rows,
            findings=self._findings,
            head=Anchor(head.number, head.seal_mac),
        )

    def _genuine_head(self) -> Head | None:
        row = self._connection.execute(select(_head)).one_or_none()
        if row is None:
            self._find(FindingKind.HEAD_REMOVED)
            return None
        try:
            return genuine_head(self._keys, self._connection, row)
        except SealKeyMissing as exc:
            self._find_missing_key(exc.key_id, seal=row.number)
        except SealsBroken:
            self._find(FindingKind.HEAD_ALTERED)
        return None

    def _genuine_starts(self) -> dict[int, ChainStart]:
        """Return where new chains began, by the number of their first seal."""
        starts: dict[int, ChainStart] = {}
        for row in self._connection.execute(select(_starts).order_by(_starts.c.number)):
            start = ChainStart(
                **{name: getattr(row, name) for name in ChainStart.__dataclass_fields__}
            )
            chain = self._keys.named(start.key_id)
            if chain is None:
                self._find_missing_key(start.key_id, seal=start.number)
            elif not hmac.compare_digest(row.mac, chain.start_mac(start)):
                self._find(FindingKind.CHAIN_START_ALTERED, seal=start.number)
                continue
            starts[start.number] = start
        return starts

    def _chain_of(self, key_id: str | None) -> Chain | None:
        if key_id not in self._chains:
            self._chains[key_id] = self._keys.of_seal(self._connection, key_id)
        return self._chains[key_id]

    def _was_given_up(self, key_id: str, number: int) -> bool:
        """Tell whether a new chain began after this seal because its key was lost."""
        return any(
            number < start.number and key_id in start.lost_keys.split()
            for start in self._starts.values()
        )

    # Seals

    def _read_seals(self, query: Select[Any]) -> Iterator[Row[Any]]:
        number = -1
        while seals := self._connection.execute(
            query.where(_seals.c.number > number).order_by(_seals.c.number).limit(SEALS_PER_READ)
        ).all():
            yield from seals
            number = seals[-1].number

    def _follow_chain(self) -> None:
        head = self._head
        expected = head.cut_number + 1 if head else None
        previous_mac = head.cut_mac if head else None
        for seal in self._read_seals(select(_seals)):
            if expected is not None and seal.number != expected:
                self._find_removed(expected, seal.number)
                previous_mac = None
            start = self._starts.get(seal.number)
            if start is not None:
                if previous_mac is not None and previous_mac != start.former_mac:
                    self._find(FindingKind.SEAL_ALTERED, seal=seal.number - 1)
                previous_mac = ""
            fits = self._check_seal(seal)
            if fits and previous_mac is not None and seal.previous_mac != previous_mac:
                self._find(FindingKind.SEAL_ALTERED, seal=seal.number)
            if head is not None and not head.cut_number < seal.number <= head.number:
                self._find(FindingKind.SEAL_UNKNOWN, seal=seal.number)
            expected, previous_mac = seal.number + 1, seal.mac if fits else None
        if head is None:
            return
        last = head.cut_number if expected is None else expected - 1
        if last < head.number:
            self._find_removed(last + 1, head.number + 1)
        elif last == head.number and previous_mac is not None:
            # Right after a new chain has begun, its record holds the MAC of the last seal.
            start = self._starts.get(last + 1)
            if previous_mac != (start.former_mac if start else head.seal_mac):
                self._find(FindingKind.SEAL_ALTERED, seal=last)

    def _find_removed(self, start: int, stop: int) -> None:
        for number in range(start, stop):
            self._find(FindingKind.SEAL_REMOVED, seal=number)

    def _check_seal(self, seal: Row[Any]) -> bool:
        """Check a seal and its rows; tell whether the seal itself is genuine.

        Without its key neither can be checked.
        """
        self._seals += 1
        chain = self._chain_of(seal.key_id)
        if chain is None:
            self._unchecked += 1
            key_id = seal.key_id or UNNAMED
            if not self._was_given_up(key_id, seal.number):
                self._find_missing_key(key_id, seal=seal.number)
            return False
        entries = list(unpack(seal.entries))
        genuine = chain.made(seal) and _describes(seal, entries)
        if not genuine:
            self._find(FindingKind.SEAL_ALTERED, seal=seal.number)
        self._check_rows(seal.number, entries, chain)
        return genuine

    def _check_rows(self, number: int, entries: list[Entry], chain: Chain) -> None:
        ids = [entry.id for entry in entries]
        query = select(*sealed_columns).where(_logs.c.id.in_(ids))
        rows = {row.id: row for row in self._connection.execute(query)}
        pruned_before = self._head.pruned_before if self._head else None
        for entry in entries:
            row = rows.get(entry.id)
            if row is None:
                pruned = pruned_before is not None and entry.occurred_at < pruned_before
                if not pruned:
                    self._find(FindingKind.ROW_REMOVED, seal=number, row=entry.id)
                continue
            self._rows += 1
            if not hmac.compare_digest(chain.entry(row).mac, entry.mac):
                self._find(FindingKind.ROW_ALTERED, seal=number, row=entry.id)

    def _compare(self, anchor: Anchor) -> None:
        head = self._head or Head()
        if anchor.seal == head.cut_number:
            mac: str | None = head.cut_mac
        else:
            mac = self._connection.execute(
                select(_seals.c.mac).where(_seals.c.number == anchor.seal)
            ).scalar()
        # A seal whose rows have all been pruned is gone and cannot be compared.
        if anchor.seal >= head.cut_number and mac != anchor.mac:
            self._find(FindingKind.ANCHOR_MISMATCH, seal=anchor.seal)

    # Rows that no seal knows of

    def _account_for_rows(self) -> None:
        """Find rows that are neither sealed nor waiting, and waiting ones that are gone.

        The ids of millions of rows do not fit into memory: they are compared in parts.
        """
        count = select(func.count()).select_from(_logs)
        for row_id in self._connection.execute(
            select(_unsealed.c.audit_id).where(~exists().where(_logs.c.id == _unsealed.c.audit_id))
        ).scalars():
            self._find(FindingKind.ROW_REMOVED, row=row_id)
        parts = 1 + self._connection.execute(count).scalar_one() // IDS_IN_MEMORY
        for part in range(parts):
            known = {i for i in self._known_ids() if i % parts == part}
            for row_id in self._ids(_logs.c.id):
                if row_id.int % parts == part and row_id.int not in known:
                    self._find(FindingKind.ROW_UNACCOUNTED, row=row_id)

    def _known_ids(self) -> Iterator[int]:
        for row_id in self._ids(_unsealed.c.audit_id):
            yield row_id.int
        for seal in self._read_seals(select(_seals.c.number, _seals.c.entries)):
            for entry in unpack(seal.entries):
                yield entry.id.int

    def _ids(self, column: Any) -> Iterator[UUID]:
        query = select(column).order_by(column).limit(IDS_PER_READ)
        ids = self._connection.execute(query).scalars().all()
        while ids:
            yield from ids
            ids = self._connection.execute(query.where(column > ids[-1])).scalars().all()


def _describes(seal: Row[Any], entries: list[Entry]) -> bool:
    """Tell whether the columns beside the MAC say what the entries under it say."""
    return bool(
        len(entries) == seal.row_count > 0
        and entries[0].id == seal.first_id
        and entries[-1].id == seal.last_id
        and min(entry.occurred_at for entry in entries) == seal.earliest_at
        and max(entry.occurred_at for entry in entries) == seal.latest_at
    )
