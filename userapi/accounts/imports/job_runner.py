"""Running import jobs: the worker imports one batch at a time.

A batch is one transaction with its users, its results and the progress of the job. If a worker
stops, no row is partly imported, and another worker continues with the next batch. The encrypted
rows of a batch are deleted with it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row as DatabaseRow
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from userapi.accounts.batch_jobs import (
    MAX_ATTEMPTS,
    ClaimLost,
    JobClaims,
    require_creator,
)
from userapi.accounts.imports.importing import UserImports
from userapi.accounts.imports.job_models import (
    batches_table,
    jobs_table,
    results_table,
    row_of_result,
)
from userapi.accounts.imports.jobs import finish_import
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.imports.rows import Row, content_of
from userapi.accounts.imports.screening import SeenInFile
from userapi.accounts.imports.sealed_batches import SealedBatches, find_sealed
from userapi.accounts.job_columns import JobState
from userapi.actor import Actor, PermissionDenied
from userapi.clock import Clock
from userapi.infrastructure.database import reading, transaction
from userapi.infrastructure.encryption import SealedValueUnreadable
from userapi.permissions import Permission
from userapi.roles.service import Roles

log = structlog.get_logger(__name__)


class ImportRunner:
    """Runs import jobs batch by batch."""

    def __init__(
        self, *, clock: Clock, batches: SealedBatches, imports: UserImports, roles: Roles
    ) -> None:
        self._clock = clock
        self._batches = batches
        self._imports = imports
        self._roles = roles
        self._claims = JobClaims(jobs_table, clock=clock)
        # The names in earlier rows of a dry run, which are in no table.
        self._seen: dict[UUID, SeenInFile] = {}

    def advance(self) -> int:
        """Import the next batch of the job that has waited longest; return how many rows.

        One worker process at a time calls this.
        """
        job = self._claims.claim_oldest()
        if job is None:
            self._seen.clear()
            return 0
        sealed = find_sealed(job.id, job.next_batch)
        if sealed is None:
            self._end(job)
            return 1
        if job.attempts >= MAX_ATTEMPTS:
            log.error("import.failed", import_id=str(job.id), reason="attempts")
            return self._reject_rest(job, "internal_error")
        try:
            rows = self._batches.open_sealed(job.id, job.next_batch, sealed)
            self._run_batch(job, rows, self._creator(job))
        except SealedValueUnreadable as exc:
            log.error("import.failed", import_id=str(job.id), reason=type(exc).__name__)
            return self._reject_rest(job, "unreadable")
        except PermissionDenied as exc:
            log.warning("import.failed", import_id=str(job.id), reason=exc.code)
            return self._reject_rest(job, exc.code)
        except ClaimLost:
            self._seen.pop(job.id, None)
            return 0
        return len(rows)

    def _run_batch(self, job: DatabaseRow[Any], rows: Sequence[Row], actor: Actor) -> None:
        def store(results: Sequence[ImportResult], session: Session) -> None:
            self._store_results(session, job, results, rows)

        if not job.dry_run:
            # The users of earlier rows are in the table.
            self._imports.run_batch(rows, SeenInFile(), actor=actor, on_results=store)
            return
        seen = self._seen.pop(job.id, None) or self._seen_so_far(job)
        self._imports.run_batch(rows, seen, actor=actor, dry_run=True, on_results=store)
        # Only after success: a batch that fails is repeated, and must not find its own names.
        self._seen[job.id] = seen

    def _store_results(
        self,
        session: Session,
        job: DatabaseRow[Any],
        results: Sequence[ImportResult],
        rows: Sequence[Row],
    ) -> None:
        """Store the results in the transaction that inserts the users of the batch."""
        self._claims.require(session, job.id)
        self._require_creator(session, job)
        created = sum(result.status == "created" for result in results)
        session.execute(
            insert(results_table),
            [
                row_of_result(job.id, result, content_of(row.values))
                for result, row in zip(results, rows, strict=True)
            ],
        )
        session.execute(
            update(jobs_table)
            .where(jobs_table.c.id == job.id)
            .values(
                done=jobs_table.c.done + len(results),
                created=jobs_table.c.created + created,
                failed=jobs_table.c.failed + len(results) - created,
                next_batch=jobs_table.c.next_batch + 1,
                attempts=0,
            )
        )
        if not job.dry_run:
            session.execute(
                delete(batches_table).where(
                    batches_table.c.import_id == job.id, batches_table.c.number == job.next_batch
                )
            )

    def _require_creator(self, session: Session, job: DatabaseRow[Any]) -> Actor:
        """Return the creator of the job with their current permissions. Raises PermissionDenied."""
        permission = Permission.USERS_IMPORT
        return require_creator(session, job, roles=self._roles, permission=permission)

    def _creator(self, job: DatabaseRow[Any]) -> Actor:
        with transaction() as session:
            return self._require_creator(session, job)

    def _seen_so_far(self, job: DatabaseRow[Any]) -> SeenInFile:
        """Return the names in the valid rows of an interrupted dry run."""
        seen = SeenInFile()
        with reading() as connection:
            valid = set(
                connection.scalars(
                    select(results_table.c.row).where(
                        results_table.c.import_id == job.id, results_table.c.status == "created"
                    )
                )
            )
        for number in range(job.next_batch):
            sealed = find_sealed(job.id, number)
            for row in self._batches.open_sealed(job.id, number, sealed) if sealed else ():
                if row.number in valid:
                    seen.add(row)
        return seen

    def _end(self, job: DatabaseRow[Any]) -> None:
        with transaction() as session:
            try:
                self._claims.require(session, job.id)
            except ClaimLost:
                return
            # A checked file can be imported afterwards.
            finish_import(
                session, job.id, JobState.DONE, now=self._clock.now(), keep_rows=job.dry_run
            )
        self._seen.pop(job.id, None)
        log.info("import.finished", import_id=str(job.id), state=JobState.DONE)

    def _reject_rest(self, job: DatabaseRow[Any], code: str) -> int:
        """End the job and reject its remaining rows; return how many."""
        with transaction() as session:
            try:
                current = self._claims.require(session, job.id)
            except ClaimLost:
                return 0
            rest = range(current.done + 1, current.row_count + 1)
            results = [ImportResult(row=row, status="error", code=code) for row in rest]
            if results:
                session.execute(
                    insert(results_table), [row_of_result(job.id, each) for each in results]
                )
            session.execute(
                update(jobs_table)
                .where(jobs_table.c.id == job.id)
                .values(done=current.row_count, failed=jobs_table.c.failed + len(results))
            )
            finish_import(session, job.id, JobState.FAILED, now=self._clock.now())
        self._seen.pop(job.id, None)
        return len(results)
