"""Listing the events of the outbox and publishing them again, for operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, String, cast, select, update

from userapi.errors import NotFound
from userapi.infrastructure.database import (
    notify,
    reading,
    require_transaction,
    table_of,
    transaction,
)

from .models import OutboxEvent
from .outbox import NOTIFY_CHANNEL

# Events can become visible after later ones: a reader re-reads so many sequence numbers.
LOOK_BACK = 1000

_table = table_of(OutboxEvent)


class EventState(StrEnum):
    """The state of an event."""

    FAILING = "failing"
    PARKED = "parked"
    SENT = "sent"
    WAITING = "waiting"


class EventNotFound(NotFound):
    """No event has one of these ids."""

    title = "No event in the outbox has this id."


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """An event of the outbox."""

    sequence: int
    id: UUID
    type: str
    subject: str
    data: str
    occurred_at: datetime
    state: EventState
    attempts: int
    last_error: str | None


class EventJournal:
    """Lists events and marks them for publication."""

    def recent(
        self, *, state: EventState | None = None, type: str | None = None, limit: int = 50
    ) -> Sequence[EventView]:
        """Return events, the newest first."""
        query = _events().order_by(_table.c.sequence.desc()).limit(limit)
        if state is not None:
            query = query.where(*_in_state(state))
        if type is not None:
            query = query.where(_table.c.type == type)
        with reading() as connection:
            return [_view(row) for row in connection.execute(query)]

    def after(self, sequence: int, *, limit: int = 1000) -> Sequence[EventView]:
        """Return events with a larger number, the oldest first."""
        query = (
            _events().where(_table.c.sequence > sequence).order_by(_table.c.sequence).limit(limit)
        )
        with reading() as connection:
            return [_view(row) for row in connection.execute(query)]

    def replay(self, ids: Sequence[UUID]) -> int:
        """Mark these events as not sent; return how many. Raises EventNotFound and marks none."""
        with transaction():
            marked = self._mark(_table.c.id.in_(ids))
            if marked < len(set(ids)):
                raise EventNotFound()
        return marked

    def replay_parked(self) -> int:
        """Mark all parked events as not sent; return how many."""
        with transaction():
            return self._mark(_table.c.parked_at.is_not(None))

    def replay_since(self, moment: datetime) -> int:
        """Mark all events since a moment as not sent; return how many."""
        with transaction():
            return self._mark(_table.c.occurred_at >= moment)

    def _mark(self, which: ColumnElement[bool]) -> int:
        session = require_transaction()
        result = session.connection().execute(
            update(_table)
            .where(which)
            .values(sent_at=None, parked_at=None, attempts=0, next_attempt_at=None, last_error=None)
        )
        notify(session, NOTIFY_CHANNEL)
        return result.rowcount


def _events() -> Select[Any]:
    # The data as text, so that a row with an invalid document is shown, too.
    columns = [column for column in _table.c if column is not _table.c.data]
    return select(*columns, cast(_table.c.data, String).label("data"))


def _in_state(state: EventState) -> list[ColumnElement[bool]]:
    waiting = [_table.c.sent_at.is_(None), _table.c.parked_at.is_(None)]
    conditions: dict[EventState, list[ColumnElement[bool]]] = {
        EventState.FAILING: [*waiting, _table.c.attempts > 0],
        EventState.PARKED: [_table.c.parked_at.is_not(None)],
        EventState.SENT: [_table.c.sent_at.is_not(None)],
        EventState.WAITING: [*waiting, _table.c.attempts == 0],
    }
    return conditions[state]


def _view(row: Row[Any]) -> EventView:
    if row.parked_at is not None:
        state = EventState.PARKED
    elif row.sent_at is not None:
        state = EventState.SENT
    else:
        state = EventState.FAILING if row.attempts else EventState.WAITING
    return EventView(
        sequence=row.sequence,
        id=row.id,
        type=row.type,
        subject=row.subject,
        data=row.data,
        occurred_at=row.occurred_at,
        state=state,
        attempts=row.attempts,
        last_error=row.last_error,
    )
