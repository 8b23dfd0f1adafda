"""Jobs that the worker runs batch by batch: how they are claimed, and how they end.

A request stores a job and its batches. One worker claims the job and runs one batch at a time. If
it stops, another worker claims the job and continues with the same batch.
"""

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Table, func, literal, select, update
from sqlalchemy.orm import Session

from userapi.accounts.job_columns import UNFINISHED, JobState
from userapi.accounts.models import UserStatus
from userapi.accounts.stored_actors import restored_actor, stored_actor
from userapi.accounts.views import users
from userapi.actor import Actor, PermissionDenied
from userapi.clock import Clock
from userapi.infrastructure.database import reading, transaction
from userapi.infrastructure.work_queues import claim_next
from userapi.permissions import Permission
from userapi.roles.assignment import role_names_of
from userapi.roles.service import Roles

# Failed attempts of one batch after which the job ends, because other jobs wait for it.
MAX_ATTEMPTS = 10


class ClaimLost(Exception):
    """The job was cancelled, or another worker has claimed it."""


class JobClaims:
    """The claims of one worker on the jobs of a table."""

    def __init__(self, jobs: Table, *, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._worker = secrets.token_hex(16)

    def claim_oldest(self) -> Row[Any] | None:
        """Claim the job that has waited longest, if any; return its row from before the claim."""
        columns = self._jobs.c
        unfinished = columns.finished_at.is_(None)
        with reading() as connection:
            if connection.execute(select(columns.id).where(unfinished).limit(1)).first() is None:
                return None
        now = self._clock.now()
        started_at = func.coalesce(columns.started_at, literal(now, columns.started_at.type))
        with transaction():
            return claim_next(
                self._jobs,
                unfinished,
                order_by=(columns.advanced_at, columns.id),
                values={
                    "state": JobState.RUNNING,
                    "started_at": started_at,
                    "claimed_by": self._worker,
                    "attempts": columns.attempts + 1,
                    "advanced_at": now,
                },
            )

    def require(self, session: Session, job_id: UUID) -> Row[Any]:
        """Lock the job and return it. Raises ClaimLost if this worker no longer holds its claim."""
        job = lock_job(session, self._jobs, job_id)
        if job is None or job.finished_at is not None or job.claimed_by != self._worker:
            raise ClaimLost()
        return job


def new_job(job_id: UUID, *, actor: Actor, now: datetime) -> dict[str, Any]:
    """Return the values of `JobColumns` for a queued job."""
    return {
        "id": job_id,
        "state": JobState.QUEUED,
        "done": 0,
        "failed": 0,
        "next_batch": 0,
        "created_by": actor.id,
        "actor": stored_actor(actor),
        "attempts": 0,
        "created_at": now,
        "advanced_at": now,
    }


def find_job(jobs: Table, job_id: UUID) -> Row[Any] | None:
    """Return the row of a job."""
    with reading() as connection:
        return connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()


def lock_job(session: Session, jobs: Table, job_id: UUID) -> Row[Any] | None:
    """Lock a job until the end of the transaction, and return its row."""
    query = select(jobs).where(jobs.c.id == job_id).with_for_update()
    return session.execute(query).one_or_none()


def end_job(session: Session, jobs: Table, job_id: UUID, state: JobState, *, now: datetime) -> None:
    """Set the final state of a locked job."""
    values = {"state": state, "finished_at": now, "claimed_by": None}
    session.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def count_unfinished(connection: Connection, jobs: Table) -> dict[str, int]:
    """Return the number of queued and of running jobs."""
    query = (
        select(jobs.c.state, func.count())
        .where(jobs.c.finished_at.is_(None))
        .group_by(jobs.c.state)
    )
    counts = {str(state): 0 for state in UNFINISHED}
    return counts | {state: count for state, count in connection.execute(query)}


def require_creator(
    session: Session, job: Row[Any], *, roles: Roles, permission: Permission
) -> Actor:
    """Return the creator of a job with their current permissions.

    Raises PermissionDenied if they are not active, or no longer hold the permission of the job.
    """
    query = select(users.c.status).where(users.c.id == job.created_by)
    status = session.execute(query).scalar_one_or_none()
    held = roles.effective_now(role_names_of(session, job.created_by))
    if status != UserStatus.ACTIVE or permission not in held:
        raise PermissionDenied(permission)
    return restored_actor(job.actor, user_id=job.created_by, permissions=held)
