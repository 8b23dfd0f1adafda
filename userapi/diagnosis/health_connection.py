"""The connection over which health checks query the database, kept between checks.

It does not belong to the pool, so health also reports a server that hangs while the pool is full.
"""

import sqlite3
import threading
from contextlib import suppress
from typing import Any

import psycopg2
from sqlalchemy.engine import make_url

from userapi.diagnosis.checks import CHECK_SECONDS
from userapi.infrastructure.database.encoding import CLIENT_ENCODING, require_unicode
from userapi.infrastructure.database.hosts import connect
from userapi.infrastructure.deadlines import BoundedConnection


class _CheckedConnection(BoundedConnection):
    """A connection that waits for a reply only slightly longer than the statement time-out."""

    reply_seconds = CHECK_SECONDS + 0.3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect in autocommit mode. Raises UnsupportedEncoding."""
        super().__init__(*args, **kwargs)
        require_unicode(self)
        self.autocommit = True


class HealthConnection:
    """Lends a connection to one check at a time; concurrent checks open further ones."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._lock = threading.Lock()
        self.on_sqlite = database_url.startswith("sqlite")
        self._kept: _CheckedConnection | None = None

    def take(self) -> tuple[Any, bool]:
        """Return a connection and whether its server is read-only.

        A kept connection that fails, or that leads to a read-only server, is replaced: another
        server may be the primary now. Raises UnsupportedEncoding and errors of the driver.
        """
        if self.on_sqlite:
            path = make_url(self._database_url).database or ""
            return sqlite3.connect(f"file:{path}?mode=ro", timeout=1, uri=True), False
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(psycopg2.Error):
                if not _is_read_only(kept):
                    return kept, False
            _close(kept)
        connection = self._connect()
        return connection, _is_read_only(connection)

    def give_back(self, connection: Any) -> None:
        """Keep a connection for the next check, unless it is broken or another one is kept."""
        if isinstance(connection, _CheckedConnection) and not connection.closed:
            with self._lock:
                if self._kept is None:
                    self._kept = connection
                    return
        _close(connection)

    def _connect(self) -> _CheckedConnection:
        connection: _CheckedConnection = connect(
            self._database_url,
            connection_factory=_CheckedConnection,
            connect_timeout=CHECK_SECONDS + 1,
            options=f"-c statement_timeout={CHECK_SECONDS}s",
            application_name="userapi-health",
            client_encoding=CLIENT_ENCODING,
        )
        return connection


def _is_read_only(connection: _CheckedConnection) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        return bool(cursor.fetchone() == ("on",))


def _close(connection: Any) -> None:
    with suppress(psycopg2.Error):  # It is closed already.
        connection.close()
