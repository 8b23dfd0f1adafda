"""The tables of import jobs, and a job as it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    Row,
    String,
    Uuid,
)
from sqlalchemy.orm import Mapped, mapped_column

from userapi.accounts.imports.columns import COLUMNS
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.job_columns import STATE_CONDITION, UNFINISHED, JobColumns, JobState
from userapi.errors import FieldError
from userapi.infrastructure.database import (
    Base,
    JsonDocument,
    UuidKey,
    new_id,
    partial_index,
    table_of,
)


class ImportJob(JobColumns, Base):
    """One import."""

    __tablename__ = "user_imports"

    dry_run: Mapped[bool]
    row_count: Mapped[int]
    created: Mapped[int]
    ignored_columns: Mapped[list[str]] = mapped_column(JsonDocument)

    __table_args__ = (
        CheckConstraint(STATE_CONDITION, name="state"),
        partial_index("ix_user_imports_unfinished", "advanced_at", where="finished_at IS NULL"),
        Index("ix_user_imports_finished_at", "finished_at"),
    )


class ImportBatch(Base):
    """Rows of a batch that is not imported yet, encrypted because they contain passwords."""

    __tablename__ = "user_import_batches"

    import_id: Mapped[UUID] = mapped_column(
        ForeignKey("user_imports.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class ImportedRow(Base):
    """The result of one row. The unique index prevents a second result for a row."""

    __tablename__ = "user_import_results"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    import_id: Mapped[UUID] = mapped_column(ForeignKey("user_imports.id", ondelete="CASCADE"))
    row: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[UUID | None] = mapped_column(Uuid())
    code: Mapped[str | None] = mapped_column(String(64))
    errors: Mapped[list[dict[str, str]] | None] = mapped_column(JsonDocument)
    # Of a refused row, without secrets, so that it can be corrected.
    content: Mapped[dict[str, str] | None] = mapped_column(JsonDocument)

    __table_args__ = (
        Index("uq_user_import_results_import_id_row", "import_id", "row", unique=True),
    )


jobs_table = table_of(ImportJob)
batches_table = table_of(ImportBatch)
results_table = table_of(ImportedRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportView:
    """A job as it is shown: its progress and how it ended."""

    id: UUID
    state: JobState
    dry_run: bool
    rows: int
    done: int
    created: int
    failed: int
    ignored_columns: list[str]
    created_by: UUID
    created_by_name: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Return whether the job has ended."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that an import refused: why, and its content without secrets."""

    result: ImportResult
    content: Mapping[str, str]


def view_of_job(row: Row[Any]) -> ImportView:
    """Return a job from its row."""
    return ImportView(
        id=row.id,
        state=JobState(row.state),
        dry_run=row.dry_run,
        rows=row.row_count,
        done=row.done,
        created=row.created,
        failed=row.failed,
        ignored_columns=row.ignored_columns,
        created_by=row.created_by,
        created_by_name=row.actor["username"],
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def row_of_result(
    import_id: UUID, result: ImportResult, content: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the row that stores a result; that of a refused row also stores its content."""
    return {
        "id": new_id(),
        "import_id": import_id,
        "row": result.row,
        "status": result.status,
        "user_id": result.id,
        "code": result.code,
        "errors": [{"field": e.field, "message": e.message, "code": e.code} for e in result.errors]
        or None,
        "content": content if result.status == "error" else None,
    }


def result_of_row(row: Row[Any]) -> ImportResult:
    """Return the result that a row stores."""
    return ImportResult(
        row=row.row,
        status=row.status,
        id=row.user_id,
        code=row.code,
        errors=[FieldError(e["field"], e["message"], e["code"]) for e in row.errors or ()],
    )


def refused_of_row(row: Row[Any]) -> RefusedRow:
    """Return the refused row that a row of results stores."""
    stored: Mapping[str, str] = row.content or {}
    # In the order of the columns of a file. PostgreSQL stores another one.
    content = {name: stored[name] for name in COLUMNS if name in stored}
    return RefusedRow(result=result_of_row(row), content=content)
