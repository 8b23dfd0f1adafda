"""Reading, and the one way to change something: `transaction()`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg2.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from userapi.errors import OutcomeUnknown
from userapi.infrastructure.database.connections import statement_timeout
from userapi.infrastructure.database.engine import db, reading_engine, uses_postgresql
from userapi.infrastructure.database.statements import is_postgresql

# Limit for one statement of an export, or one fetch of a streamed result.
LONG_READ_SECONDS = 60

_HOOKS = "userapi.after_commit"


@contextmanager
def transaction() -> Iterator[Session]:
    """Run one use case: commit at the end of the block, roll back when it raises.

    Hooks of `after_commit` run after the commit. Does not nest. Raises OutcomeUnknown if the
    connection ends during the commit.
    """
    session: Session = db.session()
    if _HOOKS in session.info:
        raise RuntimeError("transaction() does not nest")
    session.rollback()
    hooks: list[Callable[[], None]] = []
    session.info[_HOOKS] = hooks
    committing = False
    try:
        with session.begin():
            yield session
            session.flush()
            # Nothing but COMMIT is left to send.
            committing = True
    except DBAPIError as exc:
        _require_known_outcome(exc, committing=committing)
        raise
    finally:
        del session.info[_HOOKS]
        session.close()
    for hook in hooks:
        hook()


def require_transaction() -> Session:
    """Return the session of the open transaction. Raises RuntimeError outside of one."""
    session: Session = db.session()
    if _HOOKS not in session.info:
        raise RuntimeError("this must run in a transaction()")
    return session


def after_commit(hook: Callable[[], None]) -> None:
    """Run `hook` once the open transaction is committed; never when it is rolled back."""
    require_transaction().info[_HOOKS].append(hook)


@contextmanager
def autocommit() -> Iterator[Connection]:
    """Yield a connection for a change that is one statement, and so a transaction by itself.

    On PostgreSQL it commits when the statement has run, on SQLite at the end of the block. Raises
    OutcomeUnknown if the connection ends before the reply.
    """
    if not uses_postgresql():
        with db.engine.begin() as connection:
            yield connection
        return
    with reading() as connection:
        try:
            yield connection
        except DBAPIError as exc:
            _require_known_outcome(exc, committing=True)
            raise


def _require_known_outcome(error: DBAPIError, *, committing: bool) -> None:
    """Raise OutcomeUnknown if the server may have committed without a reply."""
    # A read-only server has rejected the statement; only the pool gives up the connection then.
    was_rejected = isinstance(error.orig, ReadOnlySqlTransaction)
    if committing and error.connection_invalidated and not was_rejected:
        raise OutcomeUnknown() from error


@contextmanager
def reading() -> Iterator[Connection]:
    """Yield a connection for reading. Each statement sees what is committed when it runs."""
    with reading_engine().connect() as connection:
        yield connection


@contextmanager
def patient_reading() -> Iterator[Connection]:
    """Yield a connection for one batch of a long index scan. Statements have no time-out."""
    if not uses_postgresql():
        with reading() as connection:
            yield connection
        return
    with db.engine.connect() as connection, statement_timeout(connection, None):
        keep_to_indexes(connection)
        yield connection


def keep_to_indexes(connection: Connection | Session) -> None:
    """Prevent sequential scans of whole tables in this transaction. Does nothing on SQLite.

    With statistics from the time when a table was small, PostgreSQL would choose them.
    """
    if isinstance(connection, Session):
        connection = connection.connection()
    if is_postgresql(connection):
        connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )


@contextmanager
def snapshot(*, seconds: float | None = LONG_READ_SECONDS) -> Iterator[Connection]:
    """Yield a connection for long reads: all its statements see the state at the first one.

    `seconds` limits each statement; None is no limit.
    """
    if not uses_postgresql():
        # Begins a transaction, and a transaction of SQLite is a snapshot.
        with reading() as connection:
            yield connection
        return
    with _repeatable_read().connect() as connection:
        with statement_timeout(connection, seconds):
            yield connection


@contextmanager
def counting() -> Iterator[Connection]:
    """Yield a snapshot for counting large tables by their indexes only.

    By default the planner of PostgreSQL reads whole tables as soon as they fit into memory, and
    evicts the pages that requests need.
    """
    if not uses_postgresql():
        with reading() as connection:
            yield connection
        return
    with _repeatable_read().connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        yield connection


def _repeatable_read() -> Engine:
    return db.engine.execution_options(begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
