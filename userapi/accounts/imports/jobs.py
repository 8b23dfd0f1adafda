"""Import jobs as requests use them: create, show, list results, cancel.

A request stores the rows encrypted; the worker imports them (see `job_runner`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from userapi.accounts.batch_jobs import (
    end_job,
    find_job,
    lock_job,
    new_job,
)
from userapi.accounts.imports.columns import COLUMNS, REFUSAL_COLUMNS, SECRETS
from userapi.accounts.imports.errors import CheckedRowsGone, ImportNotFound
from userapi.accounts.imports.importing import batches_of
from userapi.accounts.imports.job_models import (
    ImportView,
    RefusedRow,
    batches_table,
    jobs_table,
    refused_of_row,
    result_of_row,
    results_table,
    view_of_job,
)
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.imports.rows import (
    Row,
    checked_form,
    require_step_up_for,
)
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.accounts.job_columns import UNFINISHED, JobState
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.infrastructure.database import new_id, notify, reading, transaction
from userapi.infrastructure.export import ExportFormat, export_pieces
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey

NOTIFY_CHANNEL = "userapi_imports"
REFUSED_FILE_COLUMNS = (*REFUSAL_COLUMNS, *(name for name in COLUMNS if name not in SECRETS))
ROWS_PER_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _SealedJob:
    """A job that is not stored yet, and its encrypted batches."""

    id: UUID
    dry_run: bool
    rows: int
    ignored_columns: list[str]
    batches: list[bytes]


class ImportJobs:
    """Stores import jobs and shows them."""

    def __init__(
        self, *, clock: Clock, audit: AuditTrail, batches: SealedBatches, cursor_key: str
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._batches = batches
        self._paginator = Paginator(
            secret=cursor_key,
            name="import-results",
            keys={"row": SortKey(results_table.c.row)},
            default_sort="row",
            tie_breaker=results_table.c.id,
        )

    def create(
        self, rows: Sequence[Row], *, actor: Actor, dry_run: bool, ignored_columns: Sequence[str]
    ) -> ImportView:
        """Store the rows for the worker and return the queued job."""
        job = self._sealed_job(rows, dry_run=dry_run, ignored_columns=ignored_columns)
        with transaction() as session:
            self._insert_job(session, job, actor=actor)
        return self.get(job.id)

    def import_checked(self, import_id: UUID, *, actor: Actor) -> ImportView:
        """Store a job that imports the rows of a finished dry run, and return it.

        Works once for a dry run, and within `CHECKED_ROWS_KEPT`. Raises ImportNotFound,
        CheckedRowsGone, SealedValueUnreadable, InsufficientUserAuthentication.
        """
        check = self.get(import_id)
        rows = self._rows_of(import_id)
        require_step_up_for(rows, actor)
        job = self._sealed_job(rows, dry_run=False, ignored_columns=check.ignored_columns)
        with transaction() as session:
            # Only one of two concurrent requests deletes the rows.
            deleted = session.execute(
                delete(batches_table)
                .where(batches_table.c.import_id == import_id)
                .returning(batches_table.c.number)
            ).all()
            if not check.dry_run or check.state != JobState.DONE or not deleted:
                raise CheckedRowsGone()
            self._insert_job(session, job, actor=actor)
        return self.get(job.id)

    def can_be_imported(self, job: ImportView) -> bool:
        """Return whether a job is a finished dry run whose rows are still stored."""
        if not job.dry_run or job.state != JobState.DONE or not job.created:
            return False
        stored = select(batches_table.c.number).where(batches_table.c.import_id == job.id).limit(1)
        with reading() as connection:
            return connection.execute(stored).first() is not None

    def get(self, import_id: UUID) -> ImportView:
        """Return a job. Raises ImportNotFound."""
        row = find_job(jobs_table, import_id)
        if row is None:
            raise ImportNotFound()
        return view_of_job(row)

    def results(self, import_id: UUID, wanted: PageRequest) -> Page[ImportResult]:
        """Return a page of the results so far, in the order of the rows.

        Raises ImportNotFound, and what `Paginator.page` raises.
        """
        self.get(import_id)
        query = select(results_table).where(results_table.c.import_id == import_id)
        with reading() as connection:
            return self._paginator.page(
                connection,
                query,
                wanted,
                filters={"import_id": import_id},
                item=result_of_row,
            )

    def refused(self, import_id: UUID, wanted: PageRequest) -> Page[RefusedRow]:
        """Return a page of the refused rows so far, in the order of the file.

        Raises ImportNotFound, and what `Paginator.page` raises.
        """
        self.get(import_id)
        with reading() as connection:
            return self._paginator.page(
                connection,
                select(results_table).where(
                    results_table.c.import_id == import_id, results_table.c.status == "error"
                ),
                wanted,
                filters={"import_id": import_id, "refused": True},
                item=refused_of_row,
            )

    def refused_file(self, import_id: UUID) -> Iterator[bytes]:
        """Return the refused rows as CSV in pieces, without passwords and hashes.

        The file can be corrected and imported. Raises ImportNotFound before this returns.
        """
        self.get(import_id)
        chunks = ([_line_of(row) for row in chunk] for chunk in _refused_chunks(import_id))
        return export_pieces(chunks, columns=REFUSED_FILE_COLUMNS, form=ExportFormat.CSV)

    def cancel(self, import_id: UUID, *, actor: Actor) -> None:
        """End a job; users that it has created stay. Does nothing if the job has ended.

        Raises ImportNotFound. Waits for the transaction of a batch, but not for its hashes.
        """
        with transaction() as session:
            job = lock_job(session, jobs_table, import_id)
            if job is None:
                raise ImportNotFound()
            if job.state in UNFINISHED:
                finish_import(session, import_id, JobState.CANCELLED, now=self._clock.now())
                self._audit.record(
                    AuditAction.IMPORT_CANCELLED,
                    actor=actor,
                    target=("import", import_id),
                    details={"rows": job.row_count, "done": job.done},
                )

    def _sealed_job(
        self, rows: Sequence[Row], *, dry_run: bool, ignored_columns: Sequence[str]
    ) -> _SealedJob:
        """Return a job to store. Encrypting is slow, so no transaction is open meanwhile."""
        import_id = new_id()
        batches = batches_of(map(checked_form, rows), hashes=not dry_run)
        sealed = [self._batches.seal(import_id, n, batch) for n, batch in enumerate(batches)]
        return _SealedJob(
            id=import_id,
            dry_run=dry_run,
            rows=len(rows),
            ignored_columns=list(ignored_columns),
            batches=sealed,
        )

    def _insert_job(self, session: Session, job: _SealedJob, *, actor: Actor) -> None:
        session.execute(
            insert(jobs_table).values(
                dry_run=job.dry_run,
                row_count=job.rows,
                created=0,
                ignored_columns=job.ignored_columns,
                **new_job(job.id, actor=actor, now=self._clock.now()),
            )
        )
        if job.batches:
            rows = [
                {"import_id": job.id, "number": number, "sealed": sealed}
                for number, sealed in enumerate(job.batches)
            ]
            session.execute(insert(batches_table), rows)
        notify(session, NOTIFY_CHANNEL)

    def _rows_of(self, import_id: UUID) -> list[Row]:
        """Return the stored rows of a job. Raises SealedValueUnreadable."""
        query = (
            select(batches_table.c.number, batches_table.c.sealed)
            .where(batches_table.c.import_id == import_id)
            .order_by(batches_table.c.number)
        )
        with reading() as connection:
            stored = connection.execute(query).all()
        return [
            row
            for number, sealed in stored
            for row in self._batches.open_sealed(import_id, number, sealed)
        ]


def finish_import(
    session: Session, import_id: UUID, state: JobState, *, now: datetime, keep_rows: bool = False
) -> None:
    """Set the final state of a locked job, and delete its remaining rows unless `keep_rows`."""
    if not keep_rows:
        session.execute(delete(batches_table).where(batches_table.c.import_id == import_id))
    end_job(session, jobs_table, import_id, state, now=now)


def _refused_chunks(import_id: UUID) -> Iterator[list[RefusedRow]]:
    """Yield the refused rows in the order of the file. No connection is held while one is sent."""
    refused = select(results_table).where(
        results_table.c.import_id == import_id, results_table.c.status == "error"
    )
    last = 0
    while True:
        chunk = refused.where(results_table.c.row > last).order_by(results_table.c.row)
        with reading() as connection:
            rows = connection.execute(chunk.limit(ROWS_PER_CHUNK)).all()
        if not rows:
            return
        yield [refused_of_row(row) for row in rows]
        last = rows[-1].row


def _line_of(refused: RefusedRow) -> dict[str, Any]:
    result = refused.result
    problems = [f"{error.field}: {error.message}" for error in result.errors]
    row_number, because = REFUSAL_COLUMNS
    return {
        row_number: result.row,
        because: " ".join(problems) or str(result.code).replace("_", " "),
        **{name: refused.content.get(name) for name in COLUMNS if name not in SECRETS},
    }
