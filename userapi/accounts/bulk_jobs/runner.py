"""Running bulk changes: the worker changes one batch of users at a time.

Each user has a separate transaction, as in `BulkChanges`; the progress is stored after each batch.
If a worker stops in between, another one repeats the batch: a user who is already as wanted then
counts as changed.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, delete, insert, select, update

from userapi.accounts.batch_jobs import (
    MAX_ATTEMPTS,
    ClaimLost,
    JobClaims,
    require_creator,
)
from userapi.accounts.bulk import BulkChanges, BulkResult
from userapi.accounts.bulk_actions import PERMISSIONS, BulkAction
from userapi.accounts.bulk_jobs.jobs import finish_bulk_job
from userapi.accounts.bulk_jobs.models import batches_table, failures_table, jobs_table
from userapi.accounts.errors import InvalidStatusTransition, UserNotFound
from userapi.accounts.job_columns import JobState
from userapi.actor import Actor, PermissionDenied
from userapi.clock import Clock
from userapi.errors import Invalid
from userapi.infrastructure.database import new_id, reading, transaction
from userapi.roles.service import Roles

# The result of a change that an interrupted attempt has already made.
ALREADY_MADE = {
    BulkAction.ACTIVATE: InvalidStatusTransition.code,
    BulkAction.DELETE: UserNotFound.code,
    BulkAction.SUSPEND: InvalidStatusTransition.code,
}

log = structlog.get_logger(__name__)


class BulkRunner:
    """Runs bulk changes batch by batch."""

    def __init__(self, *, clock: Clock, bulk: BulkChanges, roles: Roles) -> None:
        self._clock = clock
        self._bulk = bulk
        self._roles = roles
        self._claims = JobClaims(jobs_table, clock=clock)

    def advance(self) -> int:
        """Change the next batch of the job that has waited longest; return how many users.

        One worker process at a time calls this.
        """
        job = self._claims.claim_oldest()
        if job is None:
            return 0
        user_ids = _users_of_batch(job.id, job.next_batch)
        if user_ids is None:
            self._end(job.id)
            return 1
        if job.attempts >= MAX_ATTEMPTS:
            log.error("bulk.failed", job_id=str(job.id), reason="attempts")
            return self._fail_rest(job.id, "internal_error")
        try:
            results = self._bulk.run(
                BulkAction(job.action),
                user_ids,
                actor=self._creator(job),
                reason=job.reason,
                role=job.role,
            )
        except PermissionDenied as exc:
            log.warning("bulk.failed", job_id=str(job.id), reason=exc.code)
            return self._fail_rest(job.id, exc.code)
        except Invalid as exc:
            # The role was deleted in the meantime.
            log.warning("bulk.failed", job_id=str(job.id), reason=exc.errors[0].code)
            return self._fail_rest(job.id, exc.errors[0].code)
        self._store_results(job, results)
        return len(results)

    def _creator(self, job: Row[Any]) -> Actor:
        """Return the creator of the job with their current permissions. Raises PermissionDenied."""
        permission = PERMISSIONS[BulkAction(job.action)]
        with transaction() as session:
            return require_creator(session, job, roles=self._roles, permission=permission)

    def _store_results(self, job: Row[Any], results: Sequence[BulkResult]) -> None:
        """Store the results of a batch, unless the job was cancelled in the meantime."""
        made_before = ALREADY_MADE.get(BulkAction(job.action)) if job.attempts else None
        failed = [
            {"id": new_id(), "job_id": job.id, "user_id": result.id, "code": result.code}
            for result in results
            if result.code is not None and result.code != made_before
        ]
        with transaction() as session:
            try:
                self._claims.require(session, job.id)
            except ClaimLost:
                return
            if failed:
                session.execute(insert(failures_table), failed)
            session.execute(
                update(jobs_table)
                .where(jobs_table.c.id == job.id)
                .values(
                    done=jobs_table.c.done + len(results),
                    failed=jobs_table.c.failed + len(failed),
                    next_batch=jobs_table.c.next_batch + 1,
                    attempts=0,
                )
            )
            session.execute(
                delete(batches_table).where(
                    batches_table.c.job_id == job.id, batches_table.c.number == job.next_batch
                )
            )

    def _end(self, job_id: UUID) -> None:
        with transaction() as session:
            try:
                self._claims.require(session, job_id)
            except ClaimLost:
                return
            finish_bulk_job(session, job_id, JobState.DONE, now=self._clock.now())
        log.info("bulk.finished", job_id=str(job_id), state=JobState.DONE)

    def _fail_rest(self, job_id: UUID, code: str) -> int:
        """End the job, and store that its remaining users were not changed; return how many."""
        with transaction() as session:
            try:
                self._claims.require(session, job_id)
            except ClaimLost:
                return 0
            rest = session.scalars(
                select(batches_table.c.user_ids)
                .where(batches_table.c.job_id == job_id)
                .order_by(batches_table.c.number)
            )
            failed = [
                {"id": new_id(), "job_id": job_id, "user_id": UUID(user_id), "code": code}
                for user_ids in rest
                for user_id in user_ids
            ]
            if failed:
                session.execute(insert(failures_table), failed)
            session.execute(
                update(jobs_table)
                .where(jobs_table.c.id == job_id)
                .values(done=jobs_table.c.user_count, failed=jobs_table.c.failed + len(failed))
            )
            finish_bulk_job(session, job_id, JobState.FAILED, now=self._clock.now())
        return len(failed)


def _users_of_batch(job_id: UUID, number: int) -> list[UUID] | None:
    """Return the users of the batch with this number, if there is one."""
    query = select(batches_table.c.user_ids).where(
        batches_table.c.job_id == job_id, batches_table.c.number == number
    )
    with reading() as connection:
        user_ids: list[str] | None = connection.execute(query).scalar_one_or_none()
    return None if user_ids is None else [UUID(user_id) for user_id in user_ids]
