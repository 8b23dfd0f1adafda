"""The worker: its last heartbeat, and the events that wait for it."""

from collections.abc import Iterator

from sqlalchemy import text

from userapi.clock import Clock
from userapi.diagnosis.checks import Check
from userapi.diagnosis.findings import Finding, Level, readable_duration, warnings
from userapi.infrastructure.database import reading
from userapi.settings import Settings

MAX_SILENCE_SECONDS = 60
MAX_EVENT_AGE_SECONDS = 60


def findings(settings: Settings, database: Check, *, clock: Clock) -> Iterator[Finding]:
    """Yield whether a worker runs, and whether it publishes events in time."""
    seen = database.worker_seen
    fix = (
        "It runs inside the service: start the service."
        if settings.runs_worker_inside
        else "Start `flask worker`: it sends mails and events, and ends suspensions."
    )
    if seen is None:
        yield Finding("worker", Level.WARNING, "has not been seen yet", fix)
    elif (silent := (clock.now() - seen).total_seconds()) > MAX_SILENCE_SECONDS:
        level = Level.WARNING if settings.runs_worker_inside else Level.FAULT
        yield Finding("worker", level, f"was last seen {readable_duration(silent)} ago", fix)
    else:
        yield Finding("worker", Level.OK, f"was seen {readable_duration(silent)} ago")
    age = database.oldest_seconds or 0
    late = bool(settings.rabbitmq_url) and age > MAX_EVENT_AGE_SECONDS
    yield Finding(
        "outbox",
        Level.WARNING if late else Level.OK,
        f"{database.pending} events wait, the oldest for {readable_duration(age)}",
        "Check that `flask worker` runs and RabbitMQ answers." if late else None,
    )
    with reading() as connection:
        parked = connection.scalar(
            text("SELECT COUNT(*) FROM outbox_events WHERE parked_at IS NOT NULL")
        )
    yield from warnings(
        "outbox",
        (
            parked,
            f"RabbitMQ has permanently rejected {parked} events",
            "Check `flask events list --state parked`; then run `flask events replay --parked`.",
        ),
    )
