"""The tables of bulk changes by the worker, and a job as it is shown."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Row,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from userapi.accounts.bulk_actions import BulkAction
from userapi.accounts.job_columns import STATE_CONDITION, UNFINISHED, JobColumns, JobState
from userapi.infrastructure.database import (
    Base,
    JsonDocument,
    UuidKey,
    new_id,
    partial_index,
    table_of,
)


class BulkJob(JobColumns, Base):
    """One bulk change."""

    __tablename__ = "bulk_jobs"

    action: Mapped[str] = mapped_column(String(32))
    role: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(500))
    user_count: Mapped[int]

    __table_args__ = (
        CheckConstraint(STATE_CONDITION, name="state"),
        partial_index("ix_bulk_jobs_unfinished", "advanced_at", where="finished_at IS NULL"),
        Index("ix_bulk_jobs_finished_at", "finished_at"),
    )


class BulkJobBatch(Base):
    """The ids of users that are not changed yet."""

    __tablename__ = "bulk_job_batches"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("bulk_jobs.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_ids: Mapped[list[str]] = mapped_column(JsonDocument)


class BulkJobFailure(Base):
    """A user whom a job could not change. The audit log has the others."""

    __tablename__ = "bulk_job_failures"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("bulk_jobs.id", ondelete="CASCADE"))
    user_id: Mapped[UUID]
    code: Mapped[str] = mapped_column(String(64))

    __table_args__ = (
        Index("uq_bulk_job_failures_job_id_user_id", "job_id", "user_id", unique=True),
        Index("ix_bulk_job_failures_job_id_id", "job_id", "id"),
    )


jobs_table = table_of(BulkJob)
batches_table = table_of(BulkJobBatch)
failures_table = table_of(BulkJobFailure)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkJobView:
    """A job as it is shown: its progress and how it ended."""

    id: UUID
    state: JobState
    action: BulkAction
    role: str | None
    reason: str | None
    users: int
    done: int
    failed: int
    created_by: UUID
    created_by_name: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Return whether the job has ended."""
        return self.state not in UNFINISHED

    @property
    def changed(self) -> int:
        """Return the number of users that were changed."""
        return self.done - self.failed


def view_of_job(row: Row[Any]) -> BulkJobView:
    """Return a job from its row."""
    return BulkJobView(
        id=row.id,
        state=JobState(row.state),
        action=BulkAction(row.action),
        role=row.role,
        reason=row.reason,
        users=row.user_count,
        done=row.done,
        failed=row.failed,
        created_by=row.created_by,
        created_by_name=row.actor["username"],
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
