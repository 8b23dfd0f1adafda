"""Connections to PostgreSQL: their parameters and time-outs, and connections outside of the pool.

Every wait has an end, so a database that is unavailable results in a quick 503.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2.errors import DeadlockDetected, SerializationFailure
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from userapi.infrastructure.database.encoding import (
    CLIENT_ENCODING,
    UnsupportedEncoding,
    require_unicode,
)
from userapi.infrastructure.database.hosts import connect
from userapi.infrastructure.deadlines import BoundedConnection, BoundedCursor
from userapi.settings import SettingsError

CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_TIMEOUT_MILLISECONDS = 3000
# Sent to the server with each connection. Poolers such as PgBouncer drop these settings, so
# deploy/pgbouncer/role.sql sets the important ones for the role.
SESSION_SETTINGS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_MILLISECONDS}ms",
    "lock_timeout": f"{STATEMENT_TIMEOUT_MILLISECONDS}ms",
    "idle_in_transaction_session_timeout": "30000ms",
    "timezone": "UTC",
    # The server also detects a lost client soon and releases its locks.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
BEHIND_POOLER = (
    "DATABASE_DIRECT_URL: must be PostgreSQL's own address, for the worker and migrations;"
    " this address leads to a pooler"
)
# How long after the server's own time-out a connection without a reply is closed.
REPLY_MARGIN_SECONDS = 0.3


class ServiceConnection(BoundedConnection):
    """A connection to PostgreSQL whose every wait ends shortly after the server's time-out."""

    reply_seconds = STATEMENT_TIMEOUT_MILLISECONDS / 1000 + REPLY_MARGIN_SECONDS
    # Whether a statement outside of a transaction is repeated once if the server cancels it to end
    # a deadlock, or in favour of replication. The cancelled statement has changed nothing.
    repeats_cancelled = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect in autocommit mode: a read is one round trip, and BEGIN starts a transaction.

        Switching the mode of a connection for each read would cost two more round trips.
        Raises UnsupportedEncoding.
        """
        super().__init__(*args, **kwargs)
        require_unicode(self)
        self.autocommit = True
        self.cursor_factory = ServiceCursor

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            with self.cursor() as cursor:
                cursor.execute(statement)


class ServiceCursor(BoundedCursor):
    """A cursor of a `ServiceConnection`: repeats a cancelled statement outside of a transaction."""

    connection: ServiceConnection

    def execute(self, *args: Any, **kwargs: Any) -> None:
        """Run a statement, within the limit for each try."""
        status = self.connection.get_transaction_status()
        try:
            super().execute(*args, **kwargs)
        except (DeadlockDetected, SerializationFailure):
            if status != TRANSACTION_STATUS_IDLE or not self.connection.repeats_cancelled:
                raise
            super().execute(*args, **kwargs)


def connect_arguments(application_name: str) -> dict[str, Any]:
    """Return the arguments of psycopg2 for a connection on which every wait has an end."""
    return {
        "connection_factory": ServiceConnection,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": application_name,
        "client_encoding": CLIENT_ENCODING,
        "tcp_user_timeout": 5000,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "options": " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items()),
    }


def connect_alone(database_url: str, application_name: str) -> ServiceConnection:
    """Return a connection to PostgreSQL outside of the pool, in autocommit mode.

    For what belongs to a connection and not to a transaction: advisory locks and LISTEN.
    """
    connection: ServiceConnection = connect(database_url, **connect_arguments(application_name))
    return connection


def require_unicode_database(database_url: str) -> None:
    """Raise SettingsError where the database cannot store Unicode.

    An unavailable database does not prevent the start: it may be available before the first
    request.
    """
    if database_url.startswith("sqlite"):
        return
    try:
        connect_alone(database_url, "userapi-start").close()
    except UnsupportedEncoding as exc:
        raise SettingsError([str(exc)]) from exc
    except psycopg2.Error:
        return


def require_no_pooler(direct_url: str) -> None:
    """Raise SettingsError where a pooler is in front of the database.

    LISTEN and advisory locks belong to a connection, and a pooler assigns connections per
    transaction. An unavailable database does not prevent the start.
    """
    if direct_url.startswith("sqlite"):
        return
    try:
        with closing(connect_alone(direct_url, "userapi-start")) as connection:
            if has_pooler(connection):
                raise SettingsError([BEHIND_POOLER])
    except psycopg2.Error:
        return


def has_pooler(connection: psycopg2.extensions.connection) -> bool:
    """Return whether a connection goes through a pooler.

    PgBouncer sends its own process number when a connection starts, which differs from the
    server's.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone() or (None,)
    return bool(backend != connection.info.backend_pid)


@contextmanager
def statement_timeout(connection: Connection | Session, seconds: float | None) -> Iterator[None]:
    """Limit the statements of the block, and their waits for locks, to `seconds`; None: no limit.

    Must be called in a transaction, because the limits are local to it. Does nothing on SQLite.
    """
    if isinstance(connection, Session):
        connection = connection.connection()
    if connection.dialect.name != "postgresql":
        yield
        return
    milliseconds = int((seconds or 0) * 1000)
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"
    )
    driver_connection: Any = connection.connection.dbapi_connection
    driver_connection.reply_seconds = None if seconds is None else seconds + REPLY_MARGIN_SECONDS
    try:
        yield
    finally:
        driver_connection.reply_seconds = ServiceConnection.reply_seconds
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout TO DEFAULT; SET LOCAL lock_timeout TO DEFAULT"
    )
