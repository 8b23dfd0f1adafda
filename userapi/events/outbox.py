"""Where events wait: a row in the transaction of the change, published afterwards by the worker."""

from collections.abc import Sequence

from sqlalchemy import Table, insert, text

from userapi.actor import Actor
from userapi.clock import Clock
from userapi.database import new_id, require_transaction
from userapi.events.catalogue import Event
from userapi.events.models import OutboxEvent

NOTIFY_CHANNEL = "userapi_outbox"

_table: Table = OutboxEvent.__table__  # type: ignore[assignment]


class Outbox:
    """Appends events to the open transaction, so that an event exists exactly when its change
    does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def append(self, event: Event, *, actor: Actor) -> None:
        """Add the event to the open transaction and wake the worker when it commits."""
        self.append_all([event], actor=actor)

    def append_all(self, events: Sequence[Event], *, actor: Actor) -> None:
        """Add the events, in their order, to the open transaction by one statement."""
        session = require_transaction()
        now = self._clock.now()
        session.execute(
            insert(_table),
            [
                {
                    "id": new_id(),
                    "type": event.type,
                    "subject": event.subject,
                    "data": event.data(),
                    "correlation_id": actor.correlation_id,
                    "traceparent": actor.traceparent,
                    "occurred_at": now,
                    "attempts": 0,
                }
                for event in events
            ],
        )
        if session.get_bind().dialect.name == "postgresql":
            # Delivered at commit, once for each transaction however often it is said.
            session.execute(text(f"NOTIFY {NOTIFY_CHANNEL}"))
