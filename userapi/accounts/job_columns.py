"""What every kind of job of the worker has: its states and its columns."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import JsonDocument, UuidKey, new_id


class JobState(StrEnum):
    """The states of a job."""

    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"
    QUEUED = "queued"
    RUNNING = "running"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
STATE_CONDITION = "state IN ('queued', 'running', 'done', 'failed', 'cancelled')"


class JobColumns:
    """The columns of every kind of job. `done` and `failed` count parts of its batches.

    No foreign key to the creator, who may be deleted in the meantime.
    """

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    state: Mapped[str] = mapped_column(String(16))
    done: Mapped[int]
    failed: Mapped[int]
    next_batch: Mapped[int]
    created_by: Mapped[UUID]
    actor: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    claimed_by: Mapped[str | None] = mapped_column(String(32))
    attempts: Mapped[int]
    created_at: Mapped[datetime]
    advanced_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
