"""The worker: what is done beside requests, each task on a thread of its own, so that a mail server
or a broker that is away holds up nothing else.

`flask worker` runs it as a process; in the embedded default it runs inside the service. Several may
run: one publishes and the others stand by, mails and seals are shared out by the database.
"""

import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg2
import structlog
from flask import Flask
from sqlalchemy.dialects import postgresql, sqlite

from userapi.cleanup import CleanUp
from userapi.database import connect_alone, db, transaction
from userapi.events.leadership import AdvisoryLock, FileLock, Leadership
from userapi.events.outbox import NOTIFY_CHANNEL as EVENTS
from userapi.events.publisher import AmqpPublisher
from userapi.events.relay import Relay
from userapi.heartbeat import WorkerHeartbeat
from userapi.mail.queue import NOTIFY_CHANNEL as MAILS
from userapi.settings import Settings
from userapi.wiring import Services

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 30.0
LISTEN_SECONDS = 1.0
STOP_SECONDS = 20.0
BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to do again and again: `run` returns how much was done, and 0 to be left alone for
    `interval_seconds`, or until the channel that it waits on is notified.
    """

    name: str
    run: Callable[[], int]
    interval_seconds: float
    channel: str | None = None
    close: Callable[[], None] | None = None


def tasks_of(services: Services) -> list[Task]:
    """Return all that a worker does."""
    tasks = [
        Task(
            name="mail",
            run=services.mail_delivery.deliver_due,
            interval_seconds=1,
            channel=MAILS,
        ),
        Task(
            name="suspensions",
            run=lambda: services.accounts.lift_due(BATCH),
            interval_seconds=1,
        ),
        Task(name="seals", run=services.audit_seals.seal_due, interval_seconds=1),
        Task(name="clean-up", run=CleanUp(services.clock).delete_due, interval_seconds=60),
        Task(name="heartbeat", run=_Heartbeat(services).beat, interval_seconds=5),
    ]
    if services.settings.rabbitmq_url:
        relay = build_relay(services)

        def publish() -> int:
            published = relay.publish_due()
            services.metrics.events_published.inc(published)
            return published

        tasks.append(
            Task(
                name="relay",
                run=publish,
                interval_seconds=1,
                channel=EVENTS,
                close=relay.close,
            )
        )
    return tasks


def build_relay(services: Services) -> Relay:
    """Return what publishes the outbox. Connects when it is first used."""
    settings = services.settings
    leadership: Leadership = (
        FileLock(settings.instance_dir / "relay.lock")
        if settings.uses_sqlite
        else AdvisoryLock(settings)
    )
    publisher = AmqpPublisher(settings.rabbitmq_url, exchange=settings.rabbitmq_exchange)
    return Relay(clock=services.clock, publisher=publisher, leadership=leadership)


class Worker:
    """Runs tasks until it is stopped."""

    def __init__(self, app: Flask, tasks: Sequence[Task], settings: Settings) -> None:
        self._app = app
        self._tasks = tasks
        self._settings = settings
        self._stopping = threading.Event()
        self._wake = {task.name: threading.Event() for task in tasks}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin all tasks and return."""
        targets: list[tuple[str, Callable[[], None]]] = [
            (task.name, lambda task=task: self._repeat(task))  # type: ignore[misc]
            for task in self._tasks
        ]
        if not self._settings.uses_sqlite:
            targets.append(("listen", self._listen))
        for name, target in targets:
            thread = threading.Thread(target=target, name=f"worker-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("worker.started", tasks=[task.name for task in self._tasks])

    def stop(self) -> None:
        """Let each task finish what it is at, and end."""
        self._stopping.set()
        for event in self._wake.values():
            event.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        log.info("worker.stopped")

    def run(self) -> None:
        """Work until `stop` is called, by a signal's handler for example."""
        self.start()
        while not self._stopping.wait(1.0):
            pass
        self.stop()

    def ask_to_stop(self) -> None:
        """Make `run` return soon. May be called from a signal's handler."""
        self._stopping.set()

    def _repeat(self, task: Task) -> None:
        structlog.contextvars.bind_contextvars(task=task.name)
        failures = 0
        while not self._stopping.is_set():
            wake = self._wake[task.name]
            wake.clear()
            try:
                with self._app.app_context():
                    done = task.run()
                failures = 0
            except Exception as exc:  # Whatever it is, the task goes on when it is over.
                failures += 1
                done = 0
                log.warning("worker.task_failed", error=type(exc).__name__, failures=failures)
            pause = task.interval_seconds
            if failures:
                pause = min(pause * 2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
            if not done:
                wake.wait(pause)
        if task.close is not None:
            task.close()

    def _listen(self) -> None:
        """Wake tasks when PostgreSQL says that there is something to do; they poll otherwise."""
        channels = sorted({task.channel for task in self._tasks if task.channel})
        while not self._stopping.is_set():
            try:
                connection = connect_alone(self._settings, "userapi-worker")
                try:
                    with connection.cursor() as cursor:
                        for channel in channels:
                            cursor.execute(f"LISTEN {channel}")
                    self._wake_on_notifications(connection)
                finally:
                    connection.close()
            except (psycopg2.Error, OSError, ValueError) as exc:
                log.warning("worker.not_listening", error=type(exc).__name__)
                self._stopping.wait(LISTEN_SECONDS)

    def _wake_on_notifications(self, connection: psycopg2.extensions.connection) -> None:
        while not self._stopping.is_set():
            ready, _, _ = select.select([connection], [], [], LISTEN_SECONDS)
            if not ready:
                continue
            connection.poll()
            while connection.notifies:
                channel = connection.notifies.pop(0).channel
                for task in self._tasks:
                    if task.channel == channel:
                        self._wake[task.name].set()


class _Heartbeat:
    """Leaves a sign of life of this process in the database."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._name = f"{socket.gethostname()[:100]}:{os.getpid()}"

    def beat(self) -> int:
        """Write down that this worker is alive."""
        now = self._services.clock.now()
        with transaction() as session:
            on_postgresql = db.engine.dialect.name == "postgresql"
            insert = postgresql.insert if on_postgresql else sqlite.insert
            session.execute(
                insert(WorkerHeartbeat)
                .values(name=self._name, last_seen_at=now)
                .on_conflict_do_update(
                    index_elements=[WorkerHeartbeat.name], set_={"last_seen_at": now}
                )
            )
        return 0
