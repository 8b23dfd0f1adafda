"""Pruning: the only way to delete audit rows, used only by `flask audit prune`.

Triggers allow the deletion of rows older than `audit_retention.deletable_before`. It is set and
reset within each transaction, so no other transaction ever sees a value.

A log of a hundred million rows takes hours. No statement has a time-out, each batch begins after
the last row of the previous one, and the planner must use the index with this order: with outdated
statistics it would read the whole log for each batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.chain import Head
from userapi.audit.findings import Finding
from userapi.audit.head import SealsBroken
from userapi.audit.models import AuditLog, AuditRetention, AuditSeal, AuditUnsealed
from userapi.audit.seals import AuditSeals
from userapi.audit.service import AuditTrail
from userapi.audit.verification import AuditVerification
from userapi.clock import Clock, rfc3339
from userapi.errors import invalid_field
from userapi.infrastructure.database import (
    is_postgresql,
    keep_to_indexes,
    patient_reading,
    statement_timeout,
    table_of,
    transaction,
)

ROWS_AT_ONCE = 2000
SEALS_AT_ONCE = 500
# Beyond so many rows their number is estimated from the seals.
MAX_COUNTED = 100_000

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_seals = table_of(AuditSeal)
_retention = table_of(AuditRetention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The number of rows to prune."""

    rows: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """The last row of a batch, in the order of rows."""

    occurred_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was deleted."""

    rows: int
    seals: int


class AuditPruning:
    """Deletes old rows, and records the limit under the MAC of the head, so the rest verifies."""

    def __init__(
        self, *, clock: Clock, trail: AuditTrail, seals: AuditSeals, verification: AuditVerification
    ) -> None:
        self._clock = clock
        self._trail = trail
        self._seals = seals
        self._verification = verification

    def count(self, before: datetime) -> Count:
        """Return how many rows are older than `before`, estimated above MAX_COUNTED."""
        bounded = (
            select(_logs.c.id)
            .where(_logs.c.occurred_at < before)
            .order_by(_logs.c.occurred_at, _logs.c.id)
            .limit(MAX_COUNTED + 1)
            .subquery()
        )
        with patient_reading() as connection:
            _keep_to_order(connection)
            rows: int = connection.execute(select(func.count()).select_from(bounded)).scalar_one()
            if rows <= MAX_COUNTED:
                return Count(rows=rows, is_exact=True)
            sealed = connection.execute(
                select(func.sum(_seals.c.row_count)).where(_seals.c.latest_at < before)
            ).scalar_one()
        return Count(rows=max(rows, int(sealed or 0)), is_exact=False)

    def prune(
        self,
        before: datetime,
        *,
        actor: Actor,
        despite_findings: bool = False,
        progress: Callable[[int], object] = lambda rows: None,
        verified: Callable[[int], object] = lambda rows: None,
    ) -> Pruned:
        """Delete all rows from before a time, in small transactions.

        Each transaction adds a row `audit.pruned` with its count and the limit. After an
        interruption the same call deletes the rest. Rows are sealed first, and the rows to delete
        are verified, which is not possible afterwards. `verified` and `progress` are called with
        the number of rows of each batch. Raises Invalid for a time in the future, and SealsBroken
        for a finding, unless `despite_findings` is set.
        """
        if before > self._clock.now():
            raise invalid_field("before", "Must be a time in the past.", "in_the_future")
        while self._seals.seal_due():
            pass
        if not despite_findings:
            findings: list[Finding] = []
            self._verification.verify_before(before, findings.append, progress=verified)
            if findings:
                raise SealsBroken(f"Nothing is pruned: {findings[0]}.")
        rows, place = 0, None
        while True:
            place, deleted = self._prune_rows(before, place, actor=actor)
            rows += deleted
            progress(deleted)
            if place is None:
                break
        if rows == 0:
            with transaction():
                self._record(before, 0, actor)
        seals = 0
        while cut := self._cut_seals(before):
            seals += cut
        return Pruned(rows=rows, seals=seals)

    def _prune_rows(
        self, before: datetime, after: _Place | None, *, actor: Actor
    ) -> tuple[_Place | None, int]:
        """Delete the next rows; return the last of them if more follow, and their number."""
        old = (
            select(_logs.c.occurred_at, _logs.c.id)
            .where(_logs.c.occurred_at < before)
            .order_by(_logs.c.occurred_at, _logs.c.id)
            .limit(ROWS_AT_ONCE)
        )
        if after is not None:
            old = old.where(
                tuple_(_logs.c.occurred_at, _logs.c.id) > tuple_(after.occurred_at, after.id)
            )
        with transaction() as session, statement_timeout(session, None):
            head = self._locked_head(session)
            self._open(session, before)
            _keep_to_order(session.connection())
            # Read first and not as a subquery: PostgreSQL could then run it once for each row.
            rows = session.execute(old).all()
            ids = {row.id for row in rows}
            # Rows that wait for their seal are deleted when they have one.
            waiting = select(_unsealed.c.audit_id).where(_unsealed.c.audit_id.in_(ids))
            ids -= set(session.scalars(waiting))
            if ids:
                session.execute(delete(_logs).where(_logs.c.id.in_(ids)))
                self._record(before, len(ids), actor)
                boundary = max(before, head.pruned_before or before)
                self._seals.save_head(
                    session,
                    replace(head, pruned_before=boundary, pruned_rows=head.pruned_rows + len(ids)),
                )
            self._close(session)
        last = _Place(*rows[-1]) if len(rows) == ROWS_AT_ONCE else None
        return last, len(ids)

    def _cut_seals(self, before: datetime) -> int:
        """Delete the oldest seals without remaining rows."""
        with transaction() as session, statement_timeout(session, None):
            head = self._locked_head(session)
            first_kept = session.scalar(
                select(func.min(_seals.c.number)).where(_seals.c.latest_at >= before)
            )
            last_cut = min(
                head.number if first_kept is None else first_kept - 1,
                head.cut_number + SEALS_AT_ONCE,
            )
            gone = session.execute(
                select(func.count(), func.sum(_seals.c.row_count)).where(
                    _seals.c.number <= last_cut
                )
            ).one()
            if not gone[0]:
                return 0
            mac = session.scalar(select(_seals.c.mac).where(_seals.c.number == last_cut))
            self._open(session, before)
            session.execute(delete(_seals).where(_seals.c.number <= last_cut))
            self._close(session)
            self._seals.save_head(
                session,
                replace(
                    head,
                    cut_number=last_cut,
                    cut_rows=head.cut_rows + gone[1],
                    cut_mac=mac or "",
                ),
            )
        return int(gone[0])

    def _locked_head(self, session: Session) -> Head:
        head = self._seals.lock_head(session, wait=True)
        if head is None:
            raise SealsBroken()
        return head

    def _open(self, session: Session, before: datetime) -> None:
        session.execute(update(_retention).values(deletable_before=before))

    def _close(self, session: Session) -> None:
        session.execute(update(_retention).values(deletable_before=None))

    def _record(self, before: datetime, rows: int, actor: Actor) -> None:
        self._trail.record(
            AuditAction.AUDIT_PRUNED,
            actor=actor,
            details={"before": rfc3339(before), "rows": rows},
        )


def _keep_to_order(connection: Connection) -> None:
    """Make this transaction read rows by the index in their order, despite the statistics."""
    keep_to_indexes(connection)
    if is_postgresql(connection):
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
