"""An end to every wait for a server, also where the network swallows what was sent.

The server's own time-outs do not help when its answer never arrives, and TCP's do not when a proxy
in between acknowledges everything; a time-out of each read is outwitted by a byte a second. So a
thread cuts a connection that has waited too long in all, and its driver raises as it does when a
server dies, which makes the pool throw the connection away.

psycopg2's own hook for this, `set_wait_callback`, costs as much, but it forbids COPY and takes
`connect_timeout` away.
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
    """A connection that another thread can break off."""

    def cut(self) -> None:
        """Break the connection, so that whoever waits for it stops. Raises nothing."""
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
        """Leave the connection alone: its answer is there."""
        with self._lock:
            self._waits.pop(id(connection), None)

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            # Under the lock: a wait that has ended may have closed its socket, and the number of
            # that may belong to somebody else by now.
            with self._lock:
                now = time.monotonic()
                for key, (deadline, connection) in list(self._waits.items()):
                    if deadline <= now:
                        del self._waits[key]
                        connection.cut()


_watch = _Watch()


def _start_anew() -> None:
    global _watch
    _watch = _Watch()


# A child has none of its parent's threads, and must touch none of its parent's connections.
os.register_at_fork(after_in_child=_start_anew)


@contextmanager
def ends_within(connection: Cuttable, seconds: float) -> Iterator[None]:
    """Cut the connection if the block takes longer."""
    _watch.begin(connection, seconds)
    try:
        yield
    finally:
        _watch.end(connection)


class BoundedConnection(psycopg2.extensions.connection):
    """A connection that breaks when an answer takes longer than `reply_seconds`."""

    reply_seconds: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = BoundedCursor

    def cut(self) -> None:
        """Break the connection; the statement that waits for it raises OperationalError."""
        try:
            with socket.socket(fileno=os.dup(self.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg2.Error):
            return  # It broke by itself; the wait is over.

    def commit(self) -> None:
        """Commit, within the bound."""
        _begin(self)
        try:
            super().commit()
        finally:
            _watch.end(self)

    def rollback(self) -> None:
        """Roll back, within the bound."""
        _begin(self)
        try:
            super().rollback()
        finally:
            _watch.end(self)


class BoundedCursor(psycopg2.extensions.cursor):
    """A cursor of a `BoundedConnection`: whatever waits for the server has an end."""

    def execute(self, *args: Any, **kwargs: Any) -> None:
        """Run a statement, within the bound."""
        connection = _begin(self.connection)
        try:
            super().execute(*args, **kwargs)
        finally:
            _watch.end(connection)

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        """Run a statement many times, within the bound in all."""
        with _bounded(self.connection):
            super().executemany(*args, **kwargs)

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        """Copy, within the bound."""
        with _bounded(self.connection):
            super().copy_expert(*args, **kwargs)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; a cursor of the server asks for it, within the bound."""
        if self.name is None:
            return super().fetchone()
        with _bounded(self.connection):
            return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows; a cursor of the server asks for them, within the bound."""
        wanted = self.arraysize if size is None else size
        if self.name is None:
            return super().fetchmany(wanted)
        with _bounded(self.connection):
            return super().fetchmany(wanted)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows; a cursor of the server asks for them, within the bound."""
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
