"""Listing, retrying and discarding mails that are not sent, for operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, select, update

from userapi.clock import Clock
from userapi.errors import NotFound
from userapi.infrastructure.database import notify, reading, table_of, transaction

from .models import OutgoingMail
from .queue import NOTIFY_CHANNEL

_table = table_of(OutgoingMail)


class MailState(StrEnum):
    """The state of a mail that is not sent."""

    PARKED = "parked"
    WAITING = "waiting"


class MailNotFound(NotFound):
    """No mail that is not sent yet has this id."""

    title = "No waiting or parked mail has this id."


@dataclass(frozen=True, slots=True, kw_only=True)
class MailView:
    """A mail that is not sent."""

    id: UUID
    kind: str
    recipient: str
    user_id: UUID | None
    state: MailState
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    parked_at: datetime | None
    last_error: str | None


class MailJournal:
    """Lists, retries and discards mails that are not sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def unsent(self, *, state: MailState | None = None, limit: int = 50) -> Sequence[MailView]:
        """Return mails, the oldest first."""
        query = (
            select(_table).where(*_in_state(state)).order_by(_table.c.created_at, _table.c.id)
        ).limit(limit)
        with reading() as connection:
            return [_view(row) for row in connection.execute(query)]

    def retry(self, mail_id: UUID) -> None:
        """Schedule a mail for sending now. Raises MailNotFound."""
        if not self._retry(_table.c.id == mail_id):
            raise MailNotFound()

    def retry_parked(self) -> int:
        """Schedule all parked mails for sending; return how many."""
        return self._retry(*_in_state(MailState.PARKED))

    def retry_waiting(self) -> int:
        """Schedule all waiting mails for sending now; return how many."""
        return self._retry(*_in_state(MailState.WAITING))

    def discard(self, mail_id: UUID) -> None:
        """Delete a mail that is not sent. Raises MailNotFound."""
        with transaction() as session:
            statement = delete(_table).where(_table.c.id == mail_id, *_in_state(None))
            if not session.execute(statement.returning(_table.c.id)).all():
                raise MailNotFound()

    def _retry(self, *which: ColumnElement[bool]) -> int:
        with transaction() as session:
            retried = session.execute(
                update(_table)
                .where(*which, *_in_state(None))
                .values(
                    attempts=0,
                    next_attempt_at=self._clock.now(),
                    parked_at=None,
                    last_error=None,
                )
                .returning(_table.c.id)
            ).all()
            if retried:
                notify(session, NOTIFY_CHANNEL)
        return len(retried)


def _in_state(state: MailState | None) -> list[ColumnElement[bool]]:
    unsent = _table.c.sent_at.is_(None)
    if state is MailState.PARKED:
        return [unsent, _table.c.parked_at.is_not(None)]
    if state is MailState.WAITING:
        return [unsent, _table.c.parked_at.is_(None)]
    return [unsent]


def _view(row: Row[Any]) -> MailView:
    parked = row.parked_at is not None
    return MailView(
        id=row.id,
        kind=row.kind,
        recipient=row.recipient,
        user_id=row.user_id,
        state=MailState.PARKED if parked else MailState.WAITING,
        created_at=row.created_at,
        attempts=row.attempts,
        next_attempt_at=None if parked else row.next_attempt_at,
        parked_at=row.parked_at,
        last_error=row.last_error,
    )
