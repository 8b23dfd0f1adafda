"""The tasks of the worker, and which of them run in one worker at a time."""

from collections.abc import Callable

from flask import Flask

from userapi.accounts.bulk_jobs.jobs import NOTIFY_CHANNEL as BULK
from userapi.accounts.imports.jobs import NOTIFY_CHANNEL as IMPORTS
from userapi.events.leadership import (
    BULK_LOCK,
    IMPORTS_LOCK,
    RELAY_LOCK,
    AdvisoryLock,
    FileLock,
    Leadership,
)
from userapi.events.outbox import NOTIFY_CHANNEL as EVENTS
from userapi.events.rabbitmq import AmqpPublisher
from userapi.events.relay import Relay
from userapi.infrastructure.heartbeat import own_name, record_heartbeat
from userapi.infrastructure.user_counts import fold_user_count_changes
from userapi.mail.queue import NOTIFY_CHANNEL as MAILS
from userapi.settings import Settings
from userapi.wiring.services import Services
from userapi.worker.loop import Task, Worker

BATCH = 100
# A stop waits for a batch, and each mail can wait for the time-out of a mail server.
MAIL_BATCH = 3


def build_worker(app: Flask, services: Services) -> Worker:
    """Return a worker with all tasks. Connects when it is started."""
    settings = services.settings
    url = None if settings.uses_sqlite else settings.database_direct_url
    return Worker(app, tasks_of(services), notifications_url=url)


def tasks_of(services: Services) -> list[Task]:
    """Return the tasks of a worker."""
    tasks = [
        Task(
            name="mail",
            run=lambda: services.mail_delivery.deliver_due(MAIL_BATCH),
            interval_seconds=1,
            channel=MAILS,
        ),
        Task(
            name="suspensions",
            run=lambda: services.account_suspension.lift_due(BATCH),
            interval_seconds=1,
        ),
        Task(
            name="key-expiry",
            run=lambda: services.key_expiry.notify_due(BATCH),
            interval_seconds=60,
        ),
        Task(name="seals", run=services.audit_seals.keep_sealing, interval_seconds=1),
        Task(name="user-counts", run=fold_user_count_changes, interval_seconds=1),
        build_imports(services),
        build_bulk_changes(services),
        Task(name="clean-up", run=services.clean_up.delete_due, interval_seconds=60),
        Task(name="heartbeat", run=_Heartbeat(services).beat, interval_seconds=5),
    ]
    if services.settings.rabbitmq_url:
        relay = build_relay(services)
        tasks.append(
            Task(
                name="relay",
                run=relay.publish_due,
                interval_seconds=1,
                channel=EVENTS,
                close=relay.close,
            )
        )
    return tasks


def build_imports(services: Services) -> Task:
    """Return the task that imports files, in one worker at a time."""
    return _exclusive_task(
        services.settings,
        name="imports",
        lock=IMPORTS_LOCK,
        channel=IMPORTS,
        advance=services.import_runner.advance,
    )


def build_bulk_changes(services: Services) -> Task:
    """Return the task that changes many users, in one worker at a time."""
    return _exclusive_task(
        services.settings,
        name="bulk",
        lock=BULK_LOCK,
        channel=BULK,
        advance=services.bulk_runner.advance,
    )


def _exclusive_task(
    settings: Settings, *, name: str, lock: int, channel: str, advance: Callable[[], int]
) -> Task:
    """Return a task that runs every second, in the worker that holds the lock."""
    leadership = _leadership(settings, key=lock, name=name)
    return Task(
        name=name,
        run=lambda: advance() if leadership.holds() else 0,
        interval_seconds=1,
        channel=channel,
        close=leadership.release,
    )


def build_relay(services: Services) -> Relay:
    """Return the relay of the outbox. It connects when it is first used."""
    settings = services.settings
    leadership = _leadership(settings, key=RELAY_LOCK, name="relay")
    publisher = AmqpPublisher(settings.rabbitmq_url, exchange=settings.rabbitmq_exchange)
    return Relay(clock=services.clock, publisher=publisher, leadership=leadership)


def _leadership(settings: Settings, *, key: int, name: str) -> Leadership:
    if settings.uses_sqlite:
        return FileLock(settings.instance_dir / f"{name}.lock")
    return AdvisoryLock(settings.database_direct_url, key=key, name=name)


class _Heartbeat:
    """Records heartbeats of this process in the database."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._name = own_name()

    def beat(self) -> int:
        """Record that this worker is running."""
        record_heartbeat(self._name, self._services.clock.now())
        return 0
