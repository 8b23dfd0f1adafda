"""Bulk changes as requests use them: create, show, list failures, try again, cancel.

A request stores the ids of the users that match at that moment; the worker changes them (see
`runner`).
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from userapi.accounts.batch_jobs import (
    end_job,
    find_job,
    lock_job,
    new_job,
)
from userapi.accounts.bulk import BulkChanges, BulkResult
from userapi.accounts.bulk_actions import PERMISSIONS, BulkAction
from userapi.accounts.bulk_jobs.errors import (
    BulkJobNotFound,
    MatchChanged,
    NobodyMatches,
    TooManyUsers,
)
from userapi.accounts.bulk_jobs.models import (
    BulkJobView,
    batches_table,
    failures_table,
    jobs_table,
    view_of_job,
)
from userapi.accounts.job_columns import UNFINISHED, JobState
from userapi.accounts.search import UserFilter, UserSearch
from userapi.accounts.views import users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.infrastructure.database import (
    new_id,
    notify,
    reading,
    transaction,
)
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey

NOTIFY_CHANNEL = "userapi_bulk"
MAX_USERS = 200_000
# A change takes a few milliseconds. Progress and cancellation wait for one batch.
BATCH_USERS = 50


class BulkJobs:
    """Stores jobs of bulk changes and shows them."""

    def __init__(
        self,
        *,
        clock: Clock,
        audit: AuditTrail,
        bulk: BulkChanges,
        search: UserSearch,
        cursor_key: str,
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._bulk = bulk
        self._search = search
        self._paginator = Paginator(
            secret=cursor_key,
            name="bulk-failures",
            keys={"id": SortKey(failures_table.c.id)},
            default_sort="id",
            tie_breaker=failures_table.c.id,
        )

    def count_matching(self, wanted: UserFilter) -> int:
        """Return the exact number of users that match."""
        with reading() as connection:
            matching = self._search.matching(wanted, connection)
            counting = matching.with_only_columns(func.count(), maintain_column_froms=True)
            return int(connection.execute(counting).scalar_one())

    def create(
        self,
        action: BulkAction,
        wanted: UserFilter,
        *,
        expected: int,
        actor: Actor,
        reason: str | None = None,
        role: str | None = None,
    ) -> BulkJobView:
        """Store a job for all users that match, and return it.

        `expected` is the number that a person has confirmed. Raises what `BulkChanges.run` raises
        before the first user, MatchChanged, NobodyMatches, TooManyUsers.
        """
        actor.require(PERMISSIONS[action])
        self._bulk.require_fitting_role(action, role)
        with reading() as connection:
            matching = self._search.matching(wanted, connection).with_only_columns(users.c.id)
            user_ids = list(connection.scalars(matching.limit(MAX_USERS + 1)))
        if len(user_ids) > MAX_USERS:
            raise TooManyUsers(MAX_USERS)
        if user_ids and len(user_ids) != expected:
            raise MatchChanged(len(user_ids))
        return self._insert_job(action, user_ids, actor=actor, reason=reason, role=role)

    def retry(self, job_id: UUID, *, actor: Actor) -> BulkJobView:
        """Store a job that repeats the change for the users for whom it failed, and return it.

        Raises BulkJobNotFound, PermissionDenied, Invalid, NobodyMatches.
        """
        job = self.get(job_id, actor=actor)
        actor.require(PERMISSIONS[job.action])
        self._bulk.require_fitting_role(job.action, job.role)
        failed = select(failures_table.c.user_id).where(failures_table.c.job_id == job_id)
        with reading() as connection:
            user_ids = list(connection.scalars(failed.order_by(failures_table.c.id)))
        return self._insert_job(job.action, user_ids, actor=actor, reason=job.reason, role=job.role)

    def get(self, job_id: UUID, *, actor: Actor) -> BulkJobView:
        """Return a job. Raises BulkJobNotFound, PermissionDenied without the one of its action."""
        row = find_job(jobs_table, job_id)
        if row is None:
            raise BulkJobNotFound()
        job = view_of_job(row)
        actor.require(PERMISSIONS[job.action])
        return job

    def failures(self, job_id: UUID, wanted: PageRequest) -> Page[BulkResult]:
        """Return a page of the users whom a job could not change, in the order of their attempts.

        Raises what `Paginator.page` raises.
        """
        with reading() as connection:
            return self._paginator.page(
                connection,
                select(failures_table).where(failures_table.c.job_id == job_id),
                wanted,
                filters={"job_id": job_id},
                item=lambda row: BulkResult(id=row.user_id, code=row.code),
            )

    def cancel(self, job_id: UUID, *, actor: Actor) -> None:
        """End a job; changes that it has made stay. Does nothing if the job has ended.

        Raises BulkJobNotFound, PermissionDenied without the one of its action.
        """
        with transaction() as session:
            row = lock_job(session, jobs_table, job_id)
            if row is None:
                raise BulkJobNotFound()
            actor.require(PERMISSIONS[BulkAction(row.action)])
            if row.state in UNFINISHED:
                finish_bulk_job(session, job_id, JobState.CANCELLED, now=self._clock.now())
                self._audit.record(
                    AuditAction.BULK_CANCELLED,
                    actor=actor,
                    target=("bulk", job_id),
                    details={"action": row.action, "users": row.user_count, "done": row.done},
                )

    def _insert_job(
        self,
        action: BulkAction,
        user_ids: Sequence[UUID],
        *,
        actor: Actor,
        reason: str | None,
        role: str | None,
    ) -> BulkJobView:
        if not user_ids:
            raise NobodyMatches()
        job_id = new_id()
        texts = [str(user_id) for user_id in user_ids]
        batches = [
            {"job_id": job_id, "number": number, "user_ids": texts[start : start + BATCH_USERS]}
            for number, start in enumerate(range(0, len(texts), BATCH_USERS))
        ]
        with transaction() as session:
            session.execute(
                insert(jobs_table).values(
                    action=action,
                    role=role,
                    reason=reason,
                    user_count=len(user_ids),
                    **new_job(job_id, actor=actor, now=self._clock.now()),
                )
            )
            session.execute(insert(batches_table), batches)
            notify(session, NOTIFY_CHANNEL)
        return self.get(job_id, actor=actor)


def finish_bulk_job(session: Session, job_id: UUID, state: JobState, *, now: datetime) -> None:
    """Set the final state of a locked job, and delete the ids of its remaining users."""
    session.execute(delete(batches_table).where(batches_table.c.job_id == job_id))
    end_job(session, jobs_table, job_id, state, now=now)
