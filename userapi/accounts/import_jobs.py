"""Imports as jobs: a request stores the rows encrypted, and the worker imports them in batches.

A batch is one transaction with its users, its results and the progress of the job, so a worker that
dies leaves no row half done: another continues with the next batch. The rows are deleted with their
batch, and whatever is left of them at the end of the job.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import (
    CheckConstraint,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Uuid,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import (
    Row as DatabaseRow,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from userapi.accounts.import_files import Row, checked_form
from userapi.accounts.imports import ImportResult, SeenInFile, UserImports, batches_of
from userapi.accounts.models import User, UserStatus
from userapi.actor import Actor, ActorType, PermissionDenied
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.errors import FieldError, NotFound
from userapi.infrastructure.database import (
    Base,
    JsonDocument,
    UuidKey,
    new_id,
    reading,
    table_of,
    transaction,
)
from userapi.infrastructure.encryption import EncryptionKeys, SealedValueUnreadable
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey
from userapi.permissions import Permission, PermissionSet
from userapi.roles.service import Roles, role_names_of

NOTIFY_CHANNEL = "userapi_imports"
PURPOSE = "import-rows"
# A batch that fails so many times in a row ends the job: others wait behind it.
MAX_ATTEMPTS = 10

log = structlog.get_logger(__name__)


class ImportState(StrEnum):
    """The closed set of states of a job."""

    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"
    QUEUED = "queued"
    RUNNING = "running"


UNFINISHED = (ImportState.QUEUED, ImportState.RUNNING)


class ImportNotFound(NotFound):
    """No import has that id."""

    title = "This import does not exist."


class ImportJob(Base):
    """One import. Whoever asked for it may be deleted meanwhile, so there is no foreign key."""

    __tablename__ = "user_imports"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    state: Mapped[str] = mapped_column(String(16))
    dry_run: Mapped[bool]
    row_count: Mapped[int]
    done: Mapped[int] = mapped_column(default=0)
    created: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    ignored_columns: Mapped[list[str]] = mapped_column(JsonDocument)
    next_batch: Mapped[int] = mapped_column(default=0)
    created_by: Mapped[UUID]
    actor: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    claimed_by: Mapped[str | None] = mapped_column(String(32))
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    advanced_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state"
        ),
        Index(
            "ix_user_imports_unfinished",
            "advanced_at",
            postgresql_where=text("finished_at IS NULL"),
            sqlite_where=text("finished_at IS NULL"),
        ),
        Index("ix_user_imports_finished_at", "finished_at"),
    )


class ImportBatch(Base):
    """Rows that wait, encrypted under ENCRYPTION_KEY: they hold passwords."""

    __tablename__ = "user_import_batches"

    import_id: Mapped[UUID] = mapped_column(
        ForeignKey("user_imports.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class ImportedRow(Base):
    """What became of one row. The constraint keeps a row from being done twice."""

    __tablename__ = "user_import_results"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    import_id: Mapped[UUID] = mapped_column(ForeignKey("user_imports.id", ondelete="CASCADE"))
    row: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[UUID | None] = mapped_column(Uuid())
    code: Mapped[str | None] = mapped_column(String(64))
    errors: Mapped[list[dict[str, str]] | None] = mapped_column(JsonDocument)

    __table_args__ = (
        Index("uq_user_import_results_import_id_row", "import_id", "row", unique=True),
    )


_jobs = table_of(ImportJob)
_batches = table_of(ImportBatch)
_results = table_of(ImportedRow)
_users = table_of(User)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportView:
    """An import as it is shown: how far it is, and how it ended."""

    id: UUID
    state: ImportState
    dry_run: bool
    rows: int
    done: int
    created: int
    failed: int
    ignored_columns: list[str]
    created_by: UUID
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Return whether nothing more happens."""
        return self.state not in UNFINISHED


class _TakenOver(Exception):
    """The job was cancelled, or another worker continues it: this batch is rolled back."""


class ImportJobs:
    """Stores imports, and does them batch by batch."""

    def __init__(
        self,
        *,
        clock: Clock,
        audit: AuditTrail,
        encryption: EncryptionKeys,
        imports: UserImports,
        roles: Roles,
        cursor_key: str,
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._encryption = encryption
        self._imports = imports
        self._roles = roles
        self._worker = secrets.token_hex(16)
        # Names of the earlier rows of a dry run, which are in no table.
        self._seen: dict[UUID, SeenInFile] = {}
        self._paginator = Paginator(
            secret=cursor_key,
            name="import-results",
            keys={"row": SortKey(_results.c.row)},
            default_sort="row",
            tie_breaker=_results.c.id,
        )

    def create(
        self, rows: Sequence[Row], *, actor: Actor, dry_run: bool, ignored_columns: Sequence[str]
    ) -> ImportView:
        """Store the rows for the worker and return the import that waits."""
        now, import_id = self._clock.now(), new_id()
        sealed = [
            {
                "import_id": import_id,
                "number": number,
                "sealed": self._sealed(import_id, number, batch),
            }
            for number, batch in enumerate(batches_of(map(checked_form, rows), hashes=not dry_run))
        ]
        with transaction() as session:
            session.execute(
                insert(_jobs).values(
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
                    actor=_stored(actor),
                    attempts=0,
                    created_at=now,
                    advanced_at=now,
                )
            )
            if sealed:
                session.execute(insert(_batches), sealed)
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text(f"NOTIFY {NOTIFY_CHANNEL}"))
        return self.get(import_id)

    def get(self, import_id: UUID) -> ImportView:
        """Return an import. Raises ImportNotFound."""
        with reading() as connection:
            row = connection.execute(select(_jobs).where(_jobs.c.id == import_id)).one_or_none()
        if row is None:
            raise ImportNotFound()
        return _view(row)

    def latest(self, count: int) -> list[ImportView]:
        """Return so many imports, the newest first."""
        with reading() as connection:
            rows = connection.execute(select(_jobs).order_by(_jobs.c.id.desc()).limit(count))
            return [_view(row) for row in rows]

    def results(
        self, import_id: UUID, wanted: PageRequest, *, refused_only: bool = False
    ) -> Page[ImportResult]:
        """Return the wanted part of what became of the rows that are done, in order.

        Raises ImportNotFound, and what `Paginator.page` raises.
        """
        self.get(import_id)
        query = select(_results).where(_results.c.import_id == import_id)
        if refused_only:
            query = query.where(_results.c.status != "created")
        with reading() as connection:
            return self._paginator.page(
                connection,
                query,
                wanted,
                filters={"import_id": import_id, "refused_only": refused_only or None},
                item=_result,
            )

    def cancel(self, import_id: UUID, *, actor: Actor) -> None:
        """End an import; users that are there already stay. Does nothing to one that has ended.

        Raises ImportNotFound. Waits for the transaction of a batch, but not for its hashes.
        """
        with transaction() as session:
            job = session.execute(
                select(_jobs).where(_jobs.c.id == import_id).with_for_update()
            ).one_or_none()
            if job is None:
                raise ImportNotFound()
            if job.state in UNFINISHED:
                self._finish(session, import_id, ImportState.CANCELLED)
                self._audit.record(
                    AuditAction.IMPORT_CANCELLED,
                    actor=actor,
                    target=("import", import_id),
                    details={"rows": job.row_count, "done": job.done},
                )

    def advance(self) -> int:
        """Import the next batch of the import that has waited longest; return how many rows.

        For the worker, which lets one process at a time do this.
        """
        job = self._claimed()
        if job is None:
            return 0
        batch = self._next_batch(job)
        if batch is None:
            self._end(job, ImportState.DONE)
            return 1
        if job.attempts >= MAX_ATTEMPTS:
            log.error("import.failed", import_id=str(job.id), reason="attempts")
            return self._refuse_rest(job, "internal_error")
        try:
            rows = self._opened(job.id, batch)
            actor = self._creator(job)
            self._import(job, rows, actor)
        except SealedValueUnreadable as exc:
            log.error("import.failed", import_id=str(job.id), reason=type(exc).__name__)
            return self._refuse_rest(job, "unreadable")
        except PermissionDenied as exc:
            log.warning("import.failed", import_id=str(job.id), reason=exc.code)
            return self._refuse_rest(job, exc.code)
        except _TakenOver:
            self._seen.pop(job.id, None)
            return 0
        return len(rows)

    def _claimed(self) -> DatabaseRow[Any] | None:
        """Return the job whose turn it is, as this worker's; None where nothing waits."""
        unfinished = _jobs.c.finished_at.is_(None)
        order = (_jobs.c.advanced_at, _jobs.c.id)
        with reading() as connection:
            if connection.execute(select(_jobs.c.id).where(unfinished).limit(1)).first() is None:
                self._seen.clear()
                return None
        now = self._clock.now()
        with transaction() as session:
            job = session.execute(
                select(_jobs)
                .where(unfinished)
                .order_by(*order)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if job is not None:
                session.execute(
                    update(_jobs)
                    .where(_jobs.c.id == job.id)
                    .values(
                        state=ImportState.RUNNING,
                        started_at=job.started_at or now,
                        claimed_by=self._worker,
                        attempts=job.attempts + 1,
                        advanced_at=now,
                    )
                )
        return job

    def _import(self, job: DatabaseRow[Any], rows: Sequence[Row], actor: Actor) -> None:
        def keep(results: Sequence[ImportResult], session: Session) -> None:
            self._keep(session, job, results)

        if not job.dry_run:
            # Earlier rows of the file are in the table of users by now.
            self._imports.run_batch(rows, SeenInFile(), actor=actor, keep=keep)
            return
        seen = self._seen.pop(job.id, None) or self._seen_so_far(job)
        self._imports.run_batch(rows, seen, actor=actor, dry_run=True, keep=keep)
        # Not before: a batch that failed is done again, and has seen nothing.
        self._seen[job.id] = seen

    def _keep(
        self, session: Session, job: DatabaseRow[Any], results: Sequence[ImportResult]
    ) -> None:
        """Record the results in the transaction of the users that a batch adds."""
        self._require_own(session, job.id)
        self._require_permitted(session, job.created_by)
        created = sum(result.status == "created" for result in results)
        session.execute(insert(_results), [_row_of(job.id, result) for result in results])
        session.execute(
            update(_jobs)
            .where(_jobs.c.id == job.id)
            .values(
                done=_jobs.c.done + len(results),
                created=_jobs.c.created + created,
                failed=_jobs.c.failed + len(results) - created,
                next_batch=_jobs.c.next_batch + 1,
                attempts=0,
            )
        )
        if not job.dry_run:
            session.execute(
                delete(_batches).where(
                    _batches.c.import_id == job.id, _batches.c.number == job.next_batch
                )
            )

    def _require_own(self, session: Session, import_id: UUID) -> DatabaseRow[Any]:
        """Lock the job. Raises _TakenOver where it is no longer this worker's to continue."""
        job = session.execute(
            select(_jobs).where(_jobs.c.id == import_id).with_for_update()
        ).one_or_none()
        if job is None or job.finished_at is not None or job.claimed_by != self._worker:
            raise _TakenOver()
        return job

    def _require_permitted(self, session: Session, user_id: UUID) -> None:
        """Raise PermissionDenied where whoever asked for the import may not import any more."""
        status = session.execute(
            select(_users.c.status).where(_users.c.id == user_id)
        ).scalar_one_or_none()
        held = self._roles.effective_now(role_names_of(session, user_id))
        if status != UserStatus.ACTIVE or Permission.USERS_IMPORT not in held:
            raise PermissionDenied(Permission.USERS_IMPORT)

    def _creator(self, job: DatabaseRow[Any]) -> Actor:
        """Return whoever asked for the import, with the permissions of this moment.

        Raises PermissionDenied.
        """
        with transaction() as session:
            self._require_permitted(session, job.created_by)
            held = self._roles.effective_now(role_names_of(session, job.created_by))
        return _actor(job, held)

    def _seen_so_far(self, job: DatabaseRow[Any]) -> SeenInFile:
        """Return the names of the rows that an interrupted dry run has found good."""
        seen = SeenInFile()
        with reading() as connection:
            good = set(
                connection.scalars(
                    select(_results.c.row).where(
                        _results.c.import_id == job.id, _results.c.status == "created"
                    )
                )
            )
        for number in range(job.next_batch):
            sealed = self._batch(job.id, number)
            for row in self._opened(job.id, (number, sealed)) if sealed else ():
                if row.number in good:
                    seen.add(row)
        return seen

    def _end(self, job: DatabaseRow[Any], state: ImportState) -> None:
        with transaction() as session:
            try:
                self._require_own(session, job.id)
            except _TakenOver:
                return
            self._finish(session, job.id, state)
        self._seen.pop(job.id, None)
        log.info("import.finished", import_id=str(job.id), state=state)

    def _refuse_rest(self, job: DatabaseRow[Any], code: str) -> int:
        """End the import and refuse every row that is not done; return how many."""
        with transaction() as session:
            try:
                now = self._require_own(session, job.id)
            except _TakenOver:
                return 0
            rest = range(now.done + 1, now.row_count + 1)
            refused = [ImportResult(row=row, status="error", code=code) for row in rest]
            if refused:
                session.execute(insert(_results), [_row_of(job.id, each) for each in refused])
            session.execute(
                update(_jobs)
                .where(_jobs.c.id == job.id)
                .values(done=now.row_count, failed=_jobs.c.failed + len(refused))
            )
            self._finish(session, job.id, ImportState.FAILED)
        self._seen.pop(job.id, None)
        return len(refused)

    def _finish(self, session: Session, import_id: UUID, state: ImportState) -> None:
        """Record the end, and delete what is left of the file."""
        session.execute(delete(_batches).where(_batches.c.import_id == import_id))
        session.execute(
            update(_jobs)
            .where(_jobs.c.id == import_id)
            .values(state=state, finished_at=self._clock.now(), claimed_by=None)
        )

    def _next_batch(self, job: DatabaseRow[Any]) -> tuple[int, bytes] | None:
        sealed = self._batch(job.id, job.next_batch)
        return None if sealed is None else (job.next_batch, sealed)

    def _batch(self, import_id: UUID, number: int) -> bytes | None:
        query = select(_batches.c.sealed).where(
            _batches.c.import_id == import_id, _batches.c.number == number
        )
        with reading() as connection:
            sealed: bytes | None = connection.execute(query).scalar_one_or_none()
        return sealed

    def _sealed(self, import_id: UUID, number: int, rows: Sequence[Row]) -> bytes:
        plain = orjson.dumps(
            [
                [row.number, row.values, [[f.field, f.message, f.code] for f in row.faults]]
                for row in rows
            ]
        )
        return self._encryption.seal(plain, PURPOSE, _bound_to(import_id, number))

    def _opened(self, import_id: UUID, batch: tuple[int, bytes]) -> list[Row]:
        number, sealed = batch
        plain = self._encryption.open_sealed(sealed, PURPOSE, _bound_to(import_id, number))
        return [
            Row(row, values, tuple(FieldError(*fault) for fault in faults))
            for row, values, faults in orjson.loads(plain)
        ]


def unfinished_imports(connection: Connection) -> dict[str, int]:
    """Return how many imports wait, and how many run."""
    query = select(_jobs.c.state, func.count()).where(_jobs.c.finished_at.is_(None))
    counts = {str(state): 0 for state in UNFINISHED}
    return counts | {
        state: count for state, count in connection.execute(query.group_by(_jobs.c.state))
    }


def _bound_to(import_id: UUID, number: int) -> bytes:
    return f"{import_id}:{number}".encode()


def _stored(actor: Actor) -> dict[str, Any]:
    return {
        "type": str(actor.type),
        "username": actor.username,
        "session_id": str(actor.session_id) if actor.session_id else None,
        "permissions": list(actor.permissions),
        "ip_address": actor.ip_address,
        "user_agent": actor.user_agent,
        "correlation_id": actor.correlation_id,
        "traceparent": actor.traceparent,
    }


def _actor(job: DatabaseRow[Any], permissions: PermissionSet) -> Actor:
    stored: Mapping[str, Any] = job.actor
    return Actor(
        type=ActorType(stored["type"]),
        id=job.created_by,
        username=stored["username"],
        session_id=UUID(stored["session_id"]) if stored["session_id"] else None,
        permissions=permissions,
        ip_address=stored["ip_address"],
        user_agent=stored["user_agent"],
        correlation_id=stored["correlation_id"],
        traceparent=stored["traceparent"],
    )


def _view(row: DatabaseRow[Any]) -> ImportView:
    return ImportView(
        id=row.id,
        state=ImportState(row.state),
        dry_run=row.dry_run,
        rows=row.row_count,
        done=row.done,
        created=row.created,
        failed=row.failed,
        ignored_columns=row.ignored_columns,
        created_by=row.created_by,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _row_of(import_id: UUID, result: ImportResult) -> dict[str, Any]:
    return {
        "id": new_id(),
        "import_id": import_id,
        "row": result.row,
        "status": result.status,
        "user_id": result.id,
        "code": result.code,
        "errors": [{"field": e.field, "message": e.message, "code": e.code} for e in result.errors]
        or None,
    }


def _result(row: DatabaseRow[Any]) -> ImportResult:
    return ImportResult(
        row=row.row,
        status=row.status,
        id=row.user_id,
        code=row.code,
        errors=[FieldError(e["field"], e["message"], e["code"]) for e in row.errors or ()],
    )
