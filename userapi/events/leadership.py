"""Leader election: one worker at a time publishes, so that events keep their order."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psycopg2
import structlog

from userapi.infrastructure.database import ServiceConnection, connect_alone

log = structlog.get_logger(__name__)

# Different from the lock of the migrations; locks are per database.
RELAY_LOCK = 7120062
IMPORTS_LOCK = 7120063
BULK_LOCK = 7120064
# The statements about a lock never wait in the server. If the primary hangs, another worker has to
# find the promoted one within six seconds, so it cannot wait for the time-out of other statements.
REPLY_SECONDS = 1.0
# Each promotion of a standby begins a timeline. The checkpoint names it some minutes later, and
# until then the end of recovery does.
_TIMELINE = (
    "SELECT greatest(timeline_id, min_recovery_end_timeline)::text"
    " FROM pg_control_checkpoint(), pg_control_recovery()"
)


class Leadership(Protocol):
    """A lock that one worker at a time can hold, and that is released when its process ends."""

    @property
    def history(self) -> str | None:
        """The history of the database since the lock is held; None if there is only one."""
        ...

    def holds(self) -> bool:
        """Return whether this worker holds the lock; acquire it if it is free."""
        ...

    def release(self) -> None:
        """Release the lock."""
        ...


class AdvisoryLock:
    """An advisory lock of a PostgreSQL session, which ends with its connection."""

    def __init__(self, database_url: str, *, key: int = RELAY_LOCK, name: str = "relay") -> None:
        self._database_url = database_url
        self._key = key
        self._name = name
        self._connection: ServiceConnection | None = None
        self._held = False
        self._history: str | None = None

    @property
    def history(self) -> str | None:
        """The timeline of the server on which the lock was acquired."""
        return self._history

    def holds(self) -> bool:
        """Return whether this worker holds the lock. Raises psycopg2.Error."""
        try:
            if self._connection is None:
                self._connection = connect_alone(self._database_url, f"userapi-{self._name}")
                self._connection.reply_seconds = REPLY_SECONDS
            with self._connection.cursor() as cursor:
                if self._held:
                    # Fails if the connection was lost, and with it the lock.
                    cursor.execute("SELECT 1")
                    return True
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (self._key,))
                (self._held,) = cursor.fetchone() or (False,)
                if self._held:
                    cursor.execute(_TIMELINE)
                    (self._history,) = cursor.fetchone() or (None,)
        except psycopg2.Error:
            self.release()
            raise
        if self._held:
            log.info(f"{self._name}.took_over")
        return self._held

    def release(self) -> None:
        """Close the connection, and with it the lock."""
        self._held = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg2.Error):  # It is closed already.
                connection.close()


class FileLock:
    """A lock of a file, for workers that share a SQLite database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def history(self) -> str | None:
        """None: a file does not fail over."""
        return None

    def holds(self) -> bool:
        """Return whether this worker holds the lock."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Close the file, and with it the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
