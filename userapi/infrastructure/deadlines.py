"""A time limit for every wait for a server, even if the network drops packets.

The server's own time-outs do not help if its reply never arrives, TCP's do not if a proxy
acknowledges everything, and a time-out per read allows a byte a second. So a thread shuts a
connection down that has waited too long in total. Its driver raises as if the server had stopped,
and the pool discards the connection.

psycopg2's own hook for this, `set_wait_callback`, costs as much, but prevents COPY and disables
`connect_timeout`.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg2.extensions

TICK_SECONDS = 0.1


class Cuttable(Protocol):
    """A connection that another thread can shut down."""

    def cut(self) -> None:
        """Shut the connection down, so that a thread that waits for it stops. Raises nothing."""
        ...


class _Watch:
    """The waits of this process, and the thread that ends those that take too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[int, tuple[float, Cuttable]] = {}
        self._thread: threading.Thread | None = None

    def begin(self, connection: Cuttable, seconds: float) -> None:
        """Cut the connection unless `end` is called in time."""
        with self._lock:
            self._waits[id(connection)] = (time.monotonic() + seconds, connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()

    def end(self, connection: Cuttable) -> None:
        """End the wait: the reply has arrived."""
        with self._lock:
            self._waits.pop(id(connection), None)

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            # Under the lock: a wait that has ended may have closed its socket, and another socket
            # may have its number now.
            with self._lock:
                now = time.monotonic()
                for key, (deadline, connection) in list(self._waits.items()):
                    if deadline <= now:
                        del self._waits[key]
                        connection.cut()


_watch = _Watch()


def _reset_watch() -> None:
    global _watch
    _watch = _Watch()


# A child process has none of its parent's threads, and must not use its parent's connections.
os.register_at_fork(after_in_child=_reset_watch)


@contextmanager
def ends_within(connection: Cuttable, seconds: float) -> Iterator[None]:
    """Shut the connection down if the block takes longer."""
    _watch.begin(connection, seconds)
    try:
        yield
    finally:
        _watch.end(connection)


class BoundedConnection(psycopg2.extensions.connection):
    """A connection that is shut down when a reply takes longer than `reply_seconds`."""

    reply_seconds: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = BoundedCursor

    def cut(self) -> None:
        """Shut the connection down; the statement that waits raises OperationalError."""
        try:
            with socket.socket(fileno=os.dup(self.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg2.Error):
            return  # It is closed already.

    def commit(self) -> None:
        """Commit, within the limit."""
        _begin(self)
        try:
            super().commit()
        finally:
            _watch.end(self)

    def rollback(self) -> None:
        """Roll back, within the limit."""
        _begin(self)
        try:
            super().rollback()
        finally:
            _watch.end(self)


class BoundedCursor(psycopg2.extensions.cursor):
    """A cursor of a `BoundedConnection`: every wait for the server is limited."""

    def execute(self, *args: Any, **kwargs: Any) -> None:
        """Run a statement, within the limit."""
        connection = _begin(self.connection)
        try:
            super().execute(*args, **kwargs)
        finally:
            _watch.end(connection)

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        """Run a statement many times, within the limit in total."""
        with _bounded(self.connection):
            super().executemany(*args, **kwargs)

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        """Copy, within the limit."""
        with _bounded(self.connection):
            super().copy_expert(*args, **kwargs)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; a server-side cursor fetches it, within the limit."""
        if self.name is None:
            return super().fetchone()
        with _bounded(self.connection):
            return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows; a server-side cursor fetches them, within the limit."""
        wanted = self.arraysize if size is None else size
        if self.name is None:
            return super().fetchmany(wanted)
        with _bounded(self.connection):
            return super().fetchmany(wanted)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows; a server-side cursor fetches them, within the limit."""
        if self.name is None:
            return super().fetchall()
        with _bounded(self.connection):
            return super().fetchall()


def _begin(connection: Any) -> BoundedConnection:
    bounded: BoundedConnection = connection
    if bounded.reply_seconds is not None:
        _watch.begin(bounded, bounded.reply_seconds)
    return bounded


@contextmanager
def _bounded(connection: Any) -> Iterator[None]:
    bounded = _begin(connection)
    try:
        yield
    finally:
        _watch.end(bounded)
