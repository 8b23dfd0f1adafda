"""Verifying the audit trail against its chain of seals; `userapi.audit.seals` says what that shows.

Seals and rows are read side by side, once, in batches: a hundred million rows take hours, and a
snapshot that is held for so long would keep the whole database from being cleaned up. Each batch of
seals is read together with the head of the chain as it is then, so that rows which come, are sealed
or pruned meanwhile are understood. Memory does not grow with the log.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, select

from userapi.audit.chain import Chain, ChainStart, Entry, Head, unpack
from userapi.audit.matching import RowMatching, Sealed
from userapi.audit.models import (
    AuditChainStart,
    AuditLog,
    AuditSeal,
    AuditSealHead,
    AuditUnsealed,
)
from userapi.audit.seal_keys import UNNAMED, SealKeys
from userapi.audit.seals import SealKeyMissing, SealsBroken, genuine_head
from userapi.infrastructure.database import (
    keep_to_indexes,
    patient_reading,
    reading,
    snapshot,
    table_of,
)

SEALS_PER_READ = 20
IDS_PER_READ = 10_000
# Of a gap in the chain so many seals are reported: a forged number can be far away.
MAX_REMOVED_IN_A_ROW = 10_000

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_seals = table_of(AuditSeal)
_head = table_of(AuditSealHead)
_starts = table_of(AuditChainStart)


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
        """Report everything that is wrong with the trail, and return what was looked at.

        `progress` is told how many rows more were read.
        """
        return _Check(self._keys, report, progress).whole_trail(anchor)

    def verify_before(
        self, moment: datetime, report: Report, *, progress: Progress = lambda rows: None
    ) -> Verified:
        """Do the same for the seals that hold rows from before `moment`, and no others."""
        return _Check(self._keys, report, progress).seals_from_before(moment)

    def sealed_rows(self) -> int:
        """Return about how many rows there are to verify."""
        with reading() as connection:
            head = connection.execute(
                select(_head.c.rows_sealed, _head.c.pruned_rows)
            ).one_or_none()
        return max(0, head.rows_sealed - head.pruned_rows) if head else 0


class _Check:
    """One verification."""

    def __init__(self, keys: SealKeys, report: Report, progress: Progress) -> None:
        self._keys = keys
        self._report = report
        self._findings = 0
        self._seals = 0
        self._unchecked = 0
        self._expected: int | None = None
        self._previous_mac: str | None = None
        self._last = -1
        self._head: Head | None = None
        self._matching = RowMatching(
            pruned_before=self._pruned_before,
            altered=lambda s: self._find(FindingKind.ROW_ALTERED, seal=s.seal, row=s.entry.id),
            removed=lambda s: self._find(FindingKind.ROW_REMOVED, seal=s.seal, row=s.entry.id),
            progress=progress,
        )
        # The chain of each key id, None where the key is not here; and the keys reported so far.
        self._chains: dict[str | None, Chain | None] = {}
        self._reported_keys: set[str] = set()
        self._starts: dict[int, ChainStart] = {}
        self._forged_starts: set[int] = set()
        self._reported_head: FindingKind | None = None

    def whole_trail(self, anchor: Anchor | None) -> Verified:
        self._follow_chain()
        if anchor is not None:
            self._compare(anchor)
        self._find_removed_before_their_seal()
        for row_id in self._matching.unaccounted(self._follow_chain):
            self._find(FindingKind.ROW_UNACCOUNTED, row=row_id)
        return self._verified()

    def seals_from_before(self, moment: datetime) -> Verified:
        query = select(_seals).where(_seals.c.earliest_at < moment)
        while seals := self._next_seals(query):
            for seal in seals:
                sealed, _ = self._check_seal(seal)
                self._matching.match(sealed, read_up_to=None)
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
        with patient_reading() as connection:
            waiting = connection.execute(select(func.count()).select_from(_unsealed)).scalar_one()
        return Verified(
            seals=self._seals,
            unchecked=self._unchecked,
            starts=tuple(self._starts.values()),
            rows=self._matching.rows,
            waiting=waiting,
            pruned=head.pruned_rows,
            findings=self._findings,
            head=Anchor(head.number, head.seal_mac),
        )

    def _genuine_head(self, connection: Connection) -> Head | None:
        row = connection.execute(select(_head)).one_or_none()
        if row is None:
            self._find_head(FindingKind.HEAD_REMOVED)
            return None
        try:
            return genuine_head(self._keys, connection, row)
        except SealKeyMissing as exc:
            self._find_missing_key(exc.key_id, seal=row.number)
        except SealsBroken:
            self._find_head(FindingKind.HEAD_ALTERED)
        return None

    def _find_head(self, kind: FindingKind) -> None:
        """Report once what is wrong with the head, which is read with each batch of seals."""
        if self._reported_head is not kind:
            self._reported_head = kind
            self._find(kind)

    def _read_starts(self, connection: Connection) -> None:
        """Note where new chains began, by the number of their first seal."""
        for row in connection.execute(select(_starts).order_by(_starts.c.number)):
            if row.number in self._starts or row.number in self._forged_starts:
                continue
            start = ChainStart(
                **{name: getattr(row, name) for name in ChainStart.__dataclass_fields__}
            )
            chain = self._keys.named(start.key_id)
            if chain is None:
                self._find_missing_key(start.key_id, seal=start.number)
            elif not hmac.compare_digest(row.mac, chain.start_mac(start)):
                self._forged_starts.add(start.number)
                self._find(FindingKind.CHAIN_START_ALTERED, seal=start.number)
                continue
            self._starts[start.number] = start

    def _pruned_before(self) -> datetime | None:
        """Return up to when rows are pruned by now."""
        with patient_reading() as connection:
            head = self._genuine_head(connection)
        return head.pruned_before if head else None

    def _chain_of(self, key_id: str | None) -> Chain | None:
        if key_id not in self._chains:
            with patient_reading() as connection:
                self._chains[key_id] = self._keys.of_seal(connection, key_id)
        return self._chains[key_id]

    def _was_given_up(self, key_id: str, number: int) -> bool:
        """Return whether a new chain began after this seal because its key was lost."""
        return any(
            number < start.number and key_id in start.lost_keys.split()
            for start in self._starts.values()
        )

    # Seals

    def _next_seals(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """Return the seals that follow, and note the head and the chains as they are with them."""
        following = query.where(_seals.c.number > self._last).order_by(_seals.c.number)
        with snapshot(seconds=None) as connection:
            self._read_starts(connection)
            self._head = self._genuine_head(connection)
            seals = connection.execute(following.limit(SEALS_PER_READ)).all()
        if seals:
            self._last = seals[-1].number
        return seals

    def _follow_chain(self) -> None:
        """Check all seals and their rows, from the first or from where the chain was left."""
        while seals := self._next_seals(select(_seals)):
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
        """Begin after the seals that went with their pruned rows."""
        head = self._head
        if head is not None and (self._expected is None or self._expected <= head.cut_number):
            self._expected, self._previous_mac = head.cut_number + 1, head.cut_mac

    def _follow(self, seal: Row[Any]) -> tuple[list[Sealed], bool]:
        """Check a seal in its place in the chain; return its rows and whether it fits."""
        if self._expected is not None and seal.number != self._expected:
            self._find_removed(self._expected, seal.number)
            self._previous_mac = None
        start = self._starts.get(seal.number)
        if start is not None:
            if self._previous_mac is not None and self._previous_mac != start.former_mac:
                self._find(FindingKind.SEAL_ALTERED, seal=seal.number - 1)
            self._previous_mac = ""
        sealed, fits = self._check_seal(seal)
        if fits and self._previous_mac is not None and seal.previous_mac != self._previous_mac:
            self._find(FindingKind.SEAL_ALTERED, seal=seal.number)
        head = self._head
        if head is not None and not head.cut_number < seal.number <= head.number:
            self._find(FindingKind.SEAL_UNKNOWN, seal=seal.number)
        self._expected, self._previous_mac = seal.number + 1, seal.mac if fits else None
        return sealed, fits

    def _compare_with_head(self) -> None:
        head = self._head
        if head is None:
            return
        last = head.cut_number if self._expected is None else self._expected - 1
        if last < head.number:
            self._find_removed(last + 1, head.number + 1)
            # Reported once, also when the chain is followed again.
            self._expected, self._previous_mac = head.number + 1, None
        elif last == head.number and self._previous_mac is not None:
            # Right after a new chain has begun, its record holds the MAC of the last seal.
            start = self._starts.get(last + 1)
            if self._previous_mac != (start.former_mac if start else head.seal_mac):
                self._find(FindingKind.SEAL_ALTERED, seal=last)
                self._previous_mac = None

    def _find_removed(self, start: int, stop: int) -> None:
        for number in range(start, min(stop, start + MAX_REMOVED_IN_A_ROW)):
            self._find(FindingKind.SEAL_REMOVED, seal=number)

    def _check_seal(self, seal: Row[Any]) -> tuple[list[Sealed], bool]:
        """Check a seal by itself; return its rows, and whether it is genuine.

        Without its key neither can be checked.
        """
        self._seals += 1
        chain = self._chain_of(seal.key_id)
        entries = list(unpack(seal.entries))
        sealed = [Sealed(entry, seal.number, chain) for entry in entries]
        if chain is None:
            self._unchecked += 1
            key_id = seal.key_id or UNNAMED
            if not self._was_given_up(key_id, seal.number):
                self._find_missing_key(key_id, seal=seal.number)
            return sealed, False
        genuine = chain.made(seal) and _describes(seal, entries)
        if not genuine:
            self._find(FindingKind.SEAL_ALTERED, seal=seal.number)
        return sealed, genuine

    def _compare(self, anchor: Anchor) -> None:
        head = self._head or Head()
        if anchor.seal == head.cut_number:
            mac: str | None = head.cut_mac
        else:
            with patient_reading() as connection:
                mac = connection.execute(
                    select(_seals.c.mac).where(_seals.c.number == anchor.seal)
                ).scalar()
        # A seal whose rows have all been pruned is gone and cannot be compared.
        if anchor.seal >= head.cut_number and mac != anchor.mac:
            self._find(FindingKind.ANCHOR_MISMATCH, seal=anchor.seal)

    # Rows that no seal knows of

    def _find_removed_before_their_seal(self) -> None:
        """Find rows that wait for a seal and are gone."""
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
                self._find(FindingKind.ROW_REMOVED, row=row_id)
            if len(ids) < IDS_PER_READ:
                return
            last = ids[-1]


def _describes(seal: Row[Any], entries: list[Entry]) -> bool:
    """Return whether the columns beside the MAC say what the entries under it say."""
    return bool(
        len(entries) == seal.row_count > 0
        and entries[0].id == seal.first_id
        and entries[-1].id == seal.last_id
        and min(entry.occurred_at for entry in entries) == seal.earliest_at
        and max(entry.occurred_at for entry in entries) == seal.latest_at
    )
