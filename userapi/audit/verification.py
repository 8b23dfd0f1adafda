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

from userapi.audit.chain import Chain, Entry, Head, unpack
from userapi.audit.models import AuditLog, AuditSeal, AuditSealHead, AuditUnsealed
from userapi.audit.seals import genuine_head, sealed_columns
from userapi.database import snapshot

SEALS_PER_READ = 20
IDS_PER_READ = 20_000
IDS_IN_MEMORY = 1_000_000

_logs: Table = AuditLog.__table__  # type: ignore[assignment]
_unsealed: Table = AuditUnsealed.__table__  # type: ignore[assignment]
_seals: Table = AuditSeal.__table__  # type: ignore[assignment]
_head: Table = AuditSealHead.__table__  # type: ignore[assignment]


class FindingKind(StrEnum):
    """What can be wrong."""

    ANCHOR_MISMATCH = "anchor_mismatch"
    HEAD_ALTERED = "head_altered"
    HEAD_REMOVED = "head_removed"
    ROW_ALTERED = "row_altered"
    ROW_REMOVED = "row_removed"
    ROW_UNACCOUNTED = "row_unaccounted"
    SEAL_ALTERED = "seal_altered"
    SEAL_REMOVED = "seal_removed"
    SEAL_UNKNOWN = "seal_unknown"


EXPLANATIONS = {
    FindingKind.ANCHOR_MISMATCH: "the chain is not the one that the anchor was taken from",
    FindingKind.HEAD_ALTERED: "the head of the chain was altered, or sealed with another key",
    FindingKind.HEAD_REMOVED: "the head of the chain was removed",
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

    def __str__(self) -> str:
        places = []
        if self.row_id is not None:
            places.append(f"row {self.row_id}")
        if self.seal is not None:
            places.append(f"seal {self.seal}")
        where = ", ".join(places) or "chain"
        return f"{where}: {EXPLANATIONS[self.kind]}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A seal as it was noted outside of the database."""

    seal: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at. `head` is the anchor to note for the next time."""

    seals: int
    rows: int
    waiting: int
    pruned: int
    findings: int
    head: Anchor


Report = Callable[[Finding], object]


class AuditVerification:
    """Compares rows with seals, and seals with one another and their head."""

    def __init__(self, *, chain: Chain) -> None:
        self._chain = chain

    def verify(self, report: Report, *, anchor: Anchor | None = None) -> Verified:
        """Report everything that is wrong with the trail, and return what was looked at."""
        with snapshot() as connection:
            return _Check(connection, self._chain, report).whole_trail(anchor)

    def verify_before(self, moment: datetime, report: Report) -> Verified:
        """Do the same for the seals that hold rows from before `moment`, and no others."""
        with snapshot() as connection:
            return _Check(connection, self._chain, report).seals_from_before(moment)


class _Check:
    """One verification, in one snapshot."""

    def __init__(self, connection: Connection, chain: Chain, report: Report) -> None:
        self._connection = connection
        self._chain = chain
        self._report = report
        self._findings = 0
        self._seals = 0
        self._rows = 0
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

    def _find(self, kind: FindingKind, *, seal: int | None = None, row: UUID | None = None) -> None:
        self._findings += 1
        self._report(Finding(kind=kind, seal=seal, row_id=row))

    def _verified(self) -> Verified:
        head = self._head or Head()
        return Verified(
            seals=self._seals,
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
        head = genuine_head(self._chain, row)
        if head is None:
            self._find(FindingKind.HEAD_ALTERED)
        return head

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
        elif last == head.number and previous_mac not in (None, head.seal_mac):
            self._find(FindingKind.SEAL_ALTERED, seal=last)

    def _find_removed(self, start: int, stop: int) -> None:
        for number in range(start, stop):
            self._find(FindingKind.SEAL_REMOVED, seal=number)

    def _check_seal(self, seal: Row[Any]) -> bool:
        """Check a seal and its rows; tell whether the seal itself is genuine."""
        self._seals += 1
        entries = list(unpack(seal.entries))
        mac = self._chain.seal_mac(
            number=seal.number,
            sealed_at=seal.sealed_at,
            previous_mac=seal.previous_mac,
            entries=seal.entries,
        )
        genuine = hmac.compare_digest(mac, seal.mac) and _describes(seal, entries)
        if not genuine:
            self._find(FindingKind.SEAL_ALTERED, seal=seal.number)
        self._check_rows(seal.number, entries)
        return genuine

    def _check_rows(self, number: int, entries: list[Entry]) -> None:
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
            if not hmac.compare_digest(self._chain.entry(row).mac, entry.mac):
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
