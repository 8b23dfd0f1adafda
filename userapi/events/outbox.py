"""Where events wait: a row in the transaction of the change, published afterwards by the worker."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Insert, Table, bindparam, func, insert, text

from userapi.actor import Actor
from userapi.clock import Clock
from userapi.database import insert_beside, new_id, parameters_beside, require_transaction
from userapi.events.catalogue import Event
from userapi.events.models import OutboxEvent

NOTIFY_CHANNEL = "userapi_outbox"

_table: Table = OutboxEvent.__table__  # type: ignore[assignment]
_INSERT = insert(_table)
_NOTIFY = text(f"NOTIFY {NOTIFY_CHANNEL}")


# What is known of an event before it is sent.
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
        session.execute(_INSERT, [_row(event, actor, now) for event in events])
        if session.get_bind().dialect.name == "postgresql":
            # Delivered at commit, once for each transaction however often it is said.
            session.execute(_NOTIFY)

    def parameters(self, event: Event, *, actor: Actor, prefix: str = "") -> dict[str, Any]:
        """Return what a statement takes that has `append_beside` for a part."""
        return parameters_beside(_table, _row(event, actor, self._clock.now()), prefix)


def append_beside(
    source: FromClause, *, prefix: str = "", **known_then: ColumnElement[str]
) -> Insert:
    """Return what adds an event for each row of `source`, as a part of another statement.

    All comes from `Outbox.parameters` but what is `known_then` of its data.
    That statement selects `waking_the_worker` too.
    """
    data: ColumnElement[Any] = bindparam(f"{prefix}{_table.name}_data", type_=_table.c.data.type)
    for name, value in known_then.items():
        data = func.jsonb_set(data, f"{{{name}}}", func.to_jsonb(value), type_=data.type)
    return insert_beside(_table, source, names=_COLUMNS, prefix=prefix, data=data)


def waking_the_worker() -> ColumnElement[Any]:
    """Return the column that wakes the worker when its statement commits."""
    return func.pg_notify(NOTIFY_CHANNEL, "")


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
