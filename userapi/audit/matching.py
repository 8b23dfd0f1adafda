"""Matching audit rows with the entries of seals, in one pass over the rows and in batches.

Rows are sealed nearly in the order of their ids, in which both are read. Ids that were read on one
side only are kept in memory: few, if rows were sealed in order. There is no snapshot: whether a
missing row was pruned, or a row without a seal waits for one, is read after the row was found, when
the explanation is already committed.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row, select

from userapi.audit.chain import Chain, Entry
from userapi.audit.models import AuditLog, AuditUnsealed
from userapi.audit.seals import sealed_columns
from userapi.infrastructure.database import (
    patient_reading,
    table_of,
)

ROWS_PER_READ = 2000
# How many unsealed rows are read ahead for one batch of seals.
UNMATCHED_PER_BATCH = 100_000
Item = TypeVar("Item")
LAST_ID = UUID(int=2**128 - 1)

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The entry of a row in a seal. `chain` is None if the seal's key is not configured."""

    entry: Entry
    seal: int
    chain: Chain | None


class RowMatching:
    """Compares rows with their entries in seals, one batch of seals after the other."""

    def __init__(
        self,
        *,
        pruned_before: Callable[[], datetime | None],
        altered: Callable[[Sealed], object],
        removed: Callable[[Sealed], object],
        progress: Callable[[int], object],
    ) -> None:
        self._pruned_before = pruned_before
        self._altered = altered
        self._removed = removed
        self._progress = progress
        self._read_up_to = UUID(int=0)
        # Rows whose seal was not read yet, and sealed rows that were not read in turn yet.
        self._unmatched: set[int] = set()
        self._ahead: set[int] = set()
        self.rows = 0

    def match(self, sealed: Sequence[Sealed], *, read_up_to: UUID | None) -> None:
        """Compare the entries of some seals with their rows.

        Rows are read in turn up to an id. With None, only the rows of the entries are read.
        """
        expected: dict[UUID, Sealed] = {}
        others: list[Sealed] = []
        for each in sealed:
            if expected.setdefault(each.entry.id, each) is not each:
                others.append(each)
        if read_up_to is not None:
            self._read_in_turn(expected, read_up_to)
        else:
            self._progress(len(sealed))
        for batch in batched([*expected.values(), *others], ROWS_PER_READ):
            self._look_up(batch)

    def unaccounted(self, read_newer_seals: Callable[[], None]) -> Iterator[UUID]:
        """Return the rows without a seal that wait for none, after all seals were read."""
        candidates = self._not_waiting(sorted(self._unmatched))
        self._unmatched.clear()
        for rows in self._rows_in_turn(LAST_ID):
            ids = [row.id.int for row in rows if row.id.int not in self._ahead]
            candidates |= self._not_waiting(ids)
        # A row that waited before and does not wait now has been sealed in the meantime.
        self._unmatched = candidates
        read_newer_seals()
        for batch in batched(sorted(self._unmatched), ROWS_PER_READ):
            ids = [UUID(int=number) for number in batch]
            query = select(_logs.c.id).where(_logs.c.id.in_(ids)).order_by(_logs.c.id)
            with patient_reading() as connection:
                yield from connection.execute(query).scalars().all()

    def _read_in_turn(self, expected: dict[UUID, Sealed], up_to: UUID) -> None:
        most = len(self._unmatched) + UNMATCHED_PER_BATCH
        for rows in self._rows_in_turn(up_to):
            for row in rows:
                sealed = expected.pop(row.id, None)
                if sealed is not None:
                    self._check(row, sealed)
                elif row.id.int in self._ahead:
                    self._ahead.discard(row.id.int)
                else:
                    self._unmatched.add(row.id.int)
            self._progress(len(rows))
            if len(self._unmatched) > most:
                return  # A seal names a distant row. Those in between are read with later seals.

    def _rows_in_turn(self, up_to: UUID) -> Iterator[Sequence[Row[Any]]]:
        """Yield the next rows, in batches, up to an id."""
        while self._read_up_to < up_to:
            query = (
                select(*sealed_columns)
                .where(_logs.c.id > self._read_up_to, _logs.c.id <= up_to)
                .order_by(_logs.c.id)
                .limit(ROWS_PER_READ)
            )
            with patient_reading() as connection:
                rows = connection.execute(query).all()
            self._read_up_to = rows[-1].id if len(rows) == ROWS_PER_READ else up_to
            yield rows

    def _look_up(self, sealed: Sequence[Sealed]) -> None:
        """Compare rows that were read before they were expected, are ahead, or are missing."""
        ids = [each.entry.id for each in sealed]
        query = select(*sealed_columns).where(_logs.c.id.in_(ids))
        with patient_reading() as connection:
            rows = {row.id: row for row in connection.execute(query)}
        missing = [each for each in sealed if each.entry.id not in rows]
        pruned_before = self._pruned_before() if missing else None
        for each in sealed:
            row = rows.get(each.entry.id)
            if row is not None:
                self._check(row, each)
                self._unmatched.discard(row.id.int)
                if row.id > self._read_up_to:
                    self._ahead.add(row.id.int)
            elif pruned_before is None or each.entry.occurred_at >= pruned_before:
                if each.chain is not None:
                    self._removed(each)

    def _check(self, row: Row[Any], sealed: Sealed) -> None:
        if sealed.chain is None:
            return
        self.rows += 1
        if not hmac.compare_digest(sealed.chain.entry(row).mac, sealed.entry.mac):
            self._altered(sealed)

    def _not_waiting(self, ids: Sequence[int]) -> set[int]:
        candidates = set(ids)
        for batch in batched(ids, ROWS_PER_READ):
            numbers = [UUID(int=number) for number in batch]
            query = select(_unsealed.c.audit_id).where(_unsealed.c.audit_id.in_(numbers))
            with patient_reading() as connection:
                candidates -= {found.int for found in connection.execute(query).scalars()}
        return candidates


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of a size."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
