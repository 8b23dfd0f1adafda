"""Import jobs as requests use them: create, show, list results, cancel.

A request stores the rows encrypted; the worker imports them (see `job_runner`).
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from userapi.accounts.imports.errors import ImportNotFound
from userapi.accounts.imports.importing import batches_of
from userapi.accounts.imports.job_models import (
    UNFINISHED,
    ImportState,
    ImportView,
    batches_table,
    jobs_table,
    result_of_row,
    results_table,
    view_of_job,
)
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.imports.rows import Row, checked_form
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.accounts.stored_actors import stored_actor
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.infrastructure.database import new_id, notify, reading, transaction
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey

NOTIFY_CHANNEL = "userapi_imports"


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
        now, import_id = self._clock.now(), new_id()
        batches = batches_of(map(checked_form, rows), hashes=not dry_run)
        sealed = [
            {
                "import_id": import_id,
                "number": number,
                "sealed": self._batches.seal(import_id, number, batch),
            }
            for number, batch in enumerate(batches)
        ]
        with transaction() as session:
            session.execute(
                insert(jobs_table).values(
                    id=import_id,
                    state=ImportState.QUEUED,
                    dry_run=dry_run,
                    row_count=len(rows),
                    done=0,
                    created=0,
                    failed=0,
                    ignored_columns=list(ignored_columns),
                    next_batch=0,
                    created_by=actor.id,
                    actor=stored_actor(actor),
                    attempts=0,
                    created_at=now,
                    advanced_at=now,
                )
            )
            if sealed:
                session.execute(insert(batches_table), sealed)
            notify(session, NOTIFY_CHANNEL)
        return self.get(import_id)

    def get(self, import_id: UUID) -> ImportView:
        """Return a job. Raises ImportNotFound."""
        with reading() as connection:
            row = connection.execute(
                select(jobs_table).where(jobs_table.c.id == import_id)
            ).one_or_none()
        if row is None:
            raise ImportNotFound()
        return view_of_job(row)

    def latest(self, count: int) -> list[ImportView]:
        """Return the latest jobs, newest first."""
        with reading() as connection:
            rows = connection.execute(
                select(jobs_table).order_by(jobs_table.c.id.desc()).limit(count)
            )
            return [view_of_job(row) for row in rows]

    def results(
        self, import_id: UUID, wanted: PageRequest, *, refused_only: bool = False
    ) -> Page[ImportResult]:
        """Return a page of the results so far, in the order of the rows.

        Raises ImportNotFound, and what `Paginator.page` raises.
        """
        self.get(import_id)
        query = select(results_table).where(results_table.c.import_id == import_id)
        if refused_only:
            query = query.where(results_table.c.status != "created")
        with reading() as connection:
            return self._paginator.page(
                connection,
                query,
                wanted,
                filters={"import_id": import_id, "refused_only": refused_only or None},
                item=result_of_row,
            )

    def cancel(self, import_id: UUID, *, actor: Actor) -> None:
        """End a job; users that it has created stay. Does nothing if the job has ended.

        Raises ImportNotFound. Waits for the transaction of a batch, but not for its hashes.
        """
        with transaction() as session:
            job = session.execute(
                select(jobs_table).where(jobs_table.c.id == import_id).with_for_update()
            ).one_or_none()
            if job is None:
                raise ImportNotFound()
            if job.state in UNFINISHED:
                finish_job(session, import_id, ImportState.CANCELLED, clock=self._clock)
                self._audit.record(
                    AuditAction.IMPORT_CANCELLED,
                    actor=actor,
                    target=("import", import_id),
                    details={"rows": job.row_count, "done": job.done},
                )


def finish_job(session: Session, import_id: UUID, state: ImportState, *, clock: Clock) -> None:
    """Set the final state of a locked job, and delete its remaining rows."""
    session.execute(delete(batches_table).where(batches_table.c.import_id == import_id))
    session.execute(
        update(jobs_table)
        .where(jobs_table.c.id == import_id)
        .values(state=state, finished_at=clock.now(), claimed_by=None)
    )
