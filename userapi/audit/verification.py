"""Verifying the audit trail against its chain of seals; `userapi.audit.seals` explains the proof.

Seals and rows are read in parallel, once, in batches: a hundred million rows take hours, and a
snapshot that is held for so long would keep the whole database from being vacuumed. Each batch of
seals is read together with the head of the chain as of that time, so rows that are added, sealed
or pruned in the meantime are accounted for. Memory does not grow with the log.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select

from userapi.audit.chain import Entry, Head, unpack
from userapi.audit.findings import Anchor, FindingKind, Findings, Report, Verified
from userapi.audit.matching import RowMatching, Sealed
from userapi.audit.models import AuditLog, AuditSeal, AuditSealHead, AuditUnsealed
from userapi.audit.seal_keys import UNNAMED, SealKeys
from userapi.audit.seal_reading import SealReader
from userapi.infrastructure.database import (
    keep_to_indexes,
    patient_reading,
    reading,
    snapshot,
    table_of,
)

IDS_PER_READ = 10_000
# This many seals of one gap in the chain are reported: a forged number can be far away.
MAX_REMOVED_IN_A_ROW = 10_000

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_seals = table_of(AuditSeal)
_head = table_of(AuditSealHead)

Progress = Callable[[int], object]


class AuditVerification:
    """Compares rows with seals, and seals with one another and their head."""

    def __init__(self, *, keys: SealKeys) -> None:
        self._keys = keys

    def verify(
        self,
        report: Report,
        *,
        anchor: Anchor | None = None,
        progress: Progress = lambda rows: None,
    ) -> Verified:
        """Report everything that is wrong with the trail, and return what was verified.

        `progress` is called with the number of rows of each batch.
        """
        return _Check(self._keys, report, progress).whole_trail(anchor)

    def verify_before(
        self, moment: datetime, report: Report, *, progress: Progress = lambda rows: None
    ) -> Verified:
        """Verify only the seals that contain rows from before `moment`."""
        return _Check(self._keys, report, progress).seals_from_before(moment)

    def sealed_rows(self) -> int:
        """Return the approximate number of rows to verify."""
        with reading() as connection:
            head = connection.execute(
                select(_head.c.rows_sealed, _head.c.pruned_rows)
            ).one_or_none()
        return max(0, head.rows_sealed - head.pruned_rows) if head else 0


class _Check:
    """One verification."""

    def __init__(self, keys: SealKeys, report: Report, progress: Progress) -> None:
        self._findings = Findings(report)
        self._reader = SealReader(keys, self._findings)
        self._seals = 0
        self._unchecked = 0
        self._expected: int | None = None
        self._previous_mac: str | None = None
        self._matching = RowMatching(
            pruned_before=self._reader.pruned_before,
            altered=lambda sealed: self._find_row(FindingKind.ROW_ALTERED, sealed),
            removed=lambda sealed: self._find_row(FindingKind.ROW_REMOVED, sealed),
            progress=progress,
        )

    def whole_trail(self, anchor: Anchor | None) -> Verified:
        self._follow_chain()
        if anchor is not None:
            self._compare(anchor)
        self._find_removed_before_their_seal()
        for row_id in self._matching.unaccounted(self._follow_chain):
            self._findings.add(FindingKind.ROW_UNACCOUNTED, row=row_id)
        return self._verified()

    def seals_from_before(self, moment: datetime) -> Verified:
        query = select(_seals).where(_seals.c.earliest_at < moment)
        while seals := self._reader.next_seals(query):
            for seal in seals:
                sealed, _ = self._check_seal(seal)
                self._matching.match(sealed, read_up_to=None)
        return self._verified()

    def _find_row(self, kind: FindingKind, sealed: Sealed) -> None:
        self._findings.add(kind, seal=sealed.seal, row=sealed.entry.id)

    def _verified(self) -> Verified:
        head = self._reader.head or Head()
        with patient_reading() as connection:
            waiting = connection.execute(select(func.count()).select_from(_unsealed)).scalar_one()
        return Verified(
            seals=self._seals,
            unchecked=self._unchecked,
            starts=tuple(self._reader.starts.values()),
            rows=self._matching.rows,
            waiting=waiting,
            pruned=head.pruned_rows,
            findings=self._findings.count,
            head=Anchor(head.number, head.seal_mac),
        )

    # Seals

    def _follow_chain(self) -> None:
        """Check all seals and their rows, from the first or from where the chain was left."""
        while seals := self._reader.next_seals(select(_seals)):
            self._skip_pruned()
            sealed: list[Sealed] = []
            furthest: UUID | None = None
            for seal in seals:
                entries, fits = self._follow(seal)
                sealed += entries
                # A forged seal could name an id far away. One without its key may be genuine.
                if entries and (fits or entries[0].chain is None):
                    furthest = max(furthest or entries[0].entry.id, *(e.entry.id for e in entries))
            self._matching.match(sealed, read_up_to=furthest)
        self._skip_pruned()
        self._compare_with_head()

    def _skip_pruned(self) -> None:
        """Begin after the seals that were deleted with their pruned rows."""
        head = self._reader.head
        if head is not None and (self._expected is None or self._expected <= head.cut_number):
            self._expected, self._previous_mac = head.cut_number + 1, head.cut_mac

    def _follow(self, seal: Row[Any]) -> tuple[list[Sealed], bool]:
        """Check a seal in its place in the chain; return its rows and whether it fits."""
        if self._expected is not None and seal.number != self._expected:
            self._find_removed(self._expected, seal.number)
            self._previous_mac = None
        start = self._reader.starts.get(seal.number)
        if start is not None:
            if self._previous_mac is not None and self._previous_mac != start.former_mac:
                self._findings.add(FindingKind.SEAL_ALTERED, seal=seal.number - 1)
            self._previous_mac = ""
        sealed, fits = self._check_seal(seal)
        if fits and self._previous_mac is not None and seal.previous_mac != self._previous_mac:
            self._findings.add(FindingKind.SEAL_ALTERED, seal=seal.number)
        head = self._reader.head
        if head is not None and not head.cut_number < seal.number <= head.number:
            self._findings.add(FindingKind.SEAL_UNKNOWN, seal=seal.number)
        self._expected, self._previous_mac = seal.number + 1, seal.mac if fits else None
        return sealed, fits

    def _compare_with_head(self) -> None:
        head = self._reader.head
        if head is None:
            return
        last = head.cut_number if self._expected is None else self._expected - 1
        if last < head.number:
            self._find_removed(last + 1, head.number + 1)
            # Reported once, even when the chain is followed again.
            self._expected, self._previous_mac = head.number + 1, None
        elif last == head.number and self._previous_mac is not None:
            # Right after a new chain has begun, its record contains the MAC of the last seal.
            start = self._reader.starts.get(last + 1)
            if self._previous_mac != (start.former_mac if start else head.seal_mac):
                self._findings.add(FindingKind.SEAL_ALTERED, seal=last)
                self._previous_mac = None

    def _find_removed(self, start: int, stop: int) -> None:
        for number in range(start, min(stop, start + MAX_REMOVED_IN_A_ROW)):
            self._findings.add(FindingKind.SEAL_REMOVED, seal=number)

    def _check_seal(self, seal: Row[Any]) -> tuple[list[Sealed], bool]:
        """Check a seal by itself; return its rows, and whether it is genuine.

        Without its key neither can be checked.
        """
        self._seals += 1
        chain = self._reader.chain_of(seal.key_id)
        entries = list(unpack(seal.entries))
        sealed = [Sealed(entry, seal.number, chain) for entry in entries]
        if chain is None:
            self._unchecked += 1
            key_id = seal.key_id or UNNAMED
            if not self._reader.is_lost(key_id, seal.number):
                self._findings.add_missing_key(key_id, seal=seal.number)
            return sealed, False
        genuine = chain.made(seal) and _describes(seal, entries)
        if not genuine:
            self._findings.add(FindingKind.SEAL_ALTERED, seal=seal.number)
        return sealed, genuine

    def _compare(self, anchor: Anchor) -> None:
        head = self._reader.head or Head()
        if anchor.seal == head.cut_number:
            mac: str | None = head.cut_mac
        else:
            with patient_reading() as connection:
                mac = connection.execute(
                    select(_seals.c.mac).where(_seals.c.number == anchor.seal)
                ).scalar()
        # A seal whose rows have all been pruned is gone and cannot be compared.
        if anchor.seal >= head.cut_number and mac != anchor.mac:
            self._findings.add(FindingKind.ANCHOR_MISMATCH, seal=anchor.seal)

    # Rows without a seal

    def _find_removed_before_their_seal(self) -> None:
        """Find rows that are queued for a seal and no longer exist."""
        last = UUID(int=0)
        while True:
            query = select(_unsealed.c.audit_id).where(_unsealed.c.audit_id > last)
            query = query.order_by(_unsealed.c.audit_id).limit(IDS_PER_READ)
            with snapshot(seconds=None) as connection:
                keep_to_indexes(connection)
                ids = connection.execute(query).scalars().all()
                present = connection.execute(select(_logs.c.id).where(_logs.c.id.in_(ids)))
                missing = set(ids).difference(present.scalars())
            for row_id in sorted(missing):
                self._findings.add(FindingKind.ROW_REMOVED, row=row_id)
            if len(ids) < IDS_PER_READ:
                return
            last = ids[-1]


def _describes(seal: Row[Any], entries: list[Entry]) -> bool:
    """Return whether the columns of a seal agree with the entries, which its MAC covers."""
    return bool(
        len(entries) == seal.row_count > 0
        and entries[0].id == seal.first_id
        and entries[-1].id == seal.last_id
        and min(entry.occurred_at for entry in entries) == seal.earliest_at
        and max(entry.occurred_at for entry in entries) == seal.latest_at
    )
