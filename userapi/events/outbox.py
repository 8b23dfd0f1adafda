"""Adding events to the outbox in the transaction of the change. The worker publishes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert

from userapi.actor import Actor
from userapi.clock import Clock
from userapi.events.catalogue import Event
from userapi.events.models import OutboxEvent
from userapi.infrastructure.database import new_id, notify, require_transaction, table_of

NOTIFY_CHANNEL = "userapi_outbox"

_table = table_of(OutboxEvent)
_INSERT = insert(_table)

# The columns of an event that is not published yet.
_COLUMNS = (
    "id",
    "type",
    "subject",
    "data",
    "correlation_id",
    "traceparent",
    "occurred_at",
    "attempts",
)


class Outbox:
    """Appends events to the transaction of their change, so one never exists without the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def append(self, event: Event, *, actor: Actor) -> None:
        """Add the event to the open transaction and wake the worker when it commits."""
        self.append_all([event], actor=actor)

    def append_all(self, events: Sequence[Event], *, actor: Actor) -> None:
        """Add the events, in their order, to the open transaction by one statement."""
        session = require_transaction()
        now = self._clock.now()
        session.execute(_INSERT, [_row(event, actor, now) for event in events])
        notify(session, NOTIFY_CHANNEL)


def _row(event: Event, actor: Actor, now: datetime) -> dict[str, Any]:
    values = (
        new_id(),
        event.type,
        event.subject,
        event.data(),
        actor.correlation_id,
        actor.traceparent,
        now,
        0,
    )
    return dict(zip(_COLUMNS, values, strict=True))
