"""The loop of the worker: it runs tasks in threads, after failures with a pause."""

import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psycopg2
import structlog
from flask import Flask
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from userapi.errors import ServiceError
from userapi.infrastructure.database import ServiceConnection, connect_alone, has_pooler

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5
# Short enough to continue within five seconds after a server is available again.
MAX_PAUSE_SECONDS = 4.0
LISTEN_SECONDS = 1.0
LISTENER_CHECKED_SECONDS = 10.0
STOP_SECONDS = 25.0

# What tasks raise when a server is unavailable. Anything else is a bug.
OUTAGES = (ServiceError, OperationalError, InterfaceError, PoolTimeout, psycopg2.Error, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A repeated task.

    `run` returns how much was done. After 0 it runs again after `interval_seconds`, or when
    `channel` is notified.
    """

    name: str
    run: Callable[[], int]
    interval_seconds: float
    channel: str | None = None
    close: Callable[[], None] | None = None


class Worker:
    """Runs tasks until it is stopped."""

    def __init__(
        self, app: Flask, tasks: Sequence[Task], *, notifications_url: str | None = None
    ) -> None:
        """`notifications_url` is a PostgreSQL database whose notifications wake the tasks.

        Without it, and if it is unavailable, the tasks poll.
        """
        self._app = app
        self._tasks = tasks
        self._notifications_url = notifications_url
        self._stopping = threading.Event()
        self._wake = {task.name: threading.Event() for task in tasks}
        self._threads: list[threading.Thread] = []

    @property
    def is_started(self) -> bool:
        """Return whether the tasks have been started."""
        return bool(self._threads)

    def start(self) -> None:
        """Start all tasks and return."""
        targets: list[tuple[str, Callable[[], None]]] = [
            (task.name, partial(self._repeat, task)) for task in self._tasks
        ]
        if self._notifications_url is not None:
            targets.append(("listen", partial(self._listen, self._notifications_url)))
        for name, target in targets:
            thread = threading.Thread(target=target, name=f"worker-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("worker.started", tasks=[task.name for task in self._tasks])

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> bool:
        """Wait until each task has finished its current run. Return whether all have in time."""
        self.request_stop()
        for wake in self._wake.values():
            wake.set()
        deadline = time.monotonic() + within_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = [thread.name for thread in self._threads if thread.is_alive()]
        if late:
            log.error("worker.stopped_late", threads=late)
        else:
            log.info("worker.stopped")
        return not late

    def run(self) -> bool:
        """Run until `request_stop` is called. Return whether all tasks have finished in time."""
        self.start()
        while not self._stopping.wait(1.0):
            pass
        return self.stop()

    def request_stop(self) -> None:
        """Make `run` return soon. Can be called from a signal handler."""
        self._stopping.set()

    def _repeat(self, task: Task) -> None:
        structlog.contextvars.bind_contextvars(task=task.name)
        wake = self._wake[task.name]
        failures = 0
        while not self._stopping.is_set():
            # Before the run and not after it, so that notifications during the run are not lost.
            wake.clear()
            try:
                with self._app.app_context():
                    done = task.run()
            except Exception as exc:  # The task continues after any error.
                failures += 1
                _report(exc, failures)
                # Notifications do not end this wait: the run would fail again for each of them.
                self._stopping.wait(_pause_after(failures))
                continue
            if failures:
                log.info("worker.task_recovered", failures=failures)
            failures = 0
            if not done and not self._stopping.is_set():
                wake.wait(task.interval_seconds)
        if task.close is not None:
            task.close()

    def _listen(self, database_url: str) -> None:
        """Wake tasks for notifications of PostgreSQL. Without this connection tasks poll."""
        failures = 0
        warned = False
        while not self._stopping.is_set():
            connection: ServiceConnection | None = None
            try:
                connection = connect_alone(database_url, "userapi-worker")
                if not warned and has_pooler(connection):
                    # LISTEN and advisory locks do not work through a pooler.
                    log.error("worker.behind_pooler", fix="Set DATABASE_DIRECT_URL.")
                    warned = True
                with connection.cursor() as cursor:
                    for channel in sorted({task.channel for task in self._tasks if task.channel}):
                        cursor.execute(f"LISTEN {channel}")
                failures = 0
                # For notifications that were sent while there was no connection.
                self._wake_tasks(None)
                self._wake_on_notifications(connection)
            except (psycopg2.Error, OSError, ValueError) as exc:
                failures += 1
                log.warning("worker.not_listening", error=type(exc).__name__)
                self._stopping.wait(_pause_after(failures))
            finally:
                if connection is not None:
                    with suppress(psycopg2.Error):  # It is closed already.
                        connection.close()

    def _wake_on_notifications(self, connection: ServiceConnection) -> None:
        checked_at = time.monotonic()
        while not self._stopping.is_set():
            ready, _, _ = select.select([connection], [], [], LISTEN_SECONDS)
            if ready:
                connection.poll()
            elif time.monotonic() - checked_at > LISTENER_CHECKED_SECONDS:
                # Without notifications a broken connection would not be detected.
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                checked_at = time.monotonic()
            while connection.notifies:
                self._wake_tasks(connection.notifies.pop(0).channel)

    def _wake_tasks(self, channel: str | None) -> None:
        """Wake the tasks of a channel; with None, of all channels."""
        for task in self._tasks:
            if task.channel is not None and channel in (None, task.channel):
                self._wake[task.name].set()


def _pause_after(failures: int) -> float:
    """Return the pause in seconds: longer each time, with jitter."""
    longest = min(FIRST_PAUSE_SECONDS * (1 << min(failures - 1, 10)), MAX_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)  # nosec B311


def _report(error: Exception, failures: int) -> None:
    if not isinstance(error, OUTAGES):
        log.error("worker.task_failed", failures=failures, exc_info=error)
    elif failures == 1 or failures % 30 == 0:
        # An outage is logged when it begins and then rarely, not every few seconds.
        log.warning("worker.task_failed", error=type(error).__name__, failures=failures)
