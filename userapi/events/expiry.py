"""Deleting unsent events: without a broker the outbox would grow without limit."""

from datetime import timedelta

import structlog
from sqlalchemy import delete, select, update

from userapi.clock import Clock
from userapi.infrastructure.database import table_of, transaction

from .models import OutboxEvent, PublishedEvents

log = structlog.get_logger(__name__)

_table = table_of(OutboxEvent)
_counts = table_of(PublishedEvents)


class EventExpiry:
    """Deletes events that were never sent. Used only if no broker is configured."""

    def __init__(self, *, clock: Clock, kept: timedelta) -> None:
        self._clock = clock
        self._kept = kept

    def delete_due(self, limit: int) -> int:
        """Delete up to `limit` of the oldest events that are due; return how many."""
        # By number and not by time, which has no index: both orders are nearly the same.
        oldest = (
            select(_table.c.sequence, _table.c.occurred_at)
            .where(_table.c.sent_at.is_(None))
            .order_by(_table.c.sequence)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        due_before = self._clock.now() - self._kept
        with transaction() as session:
            due = [row.sequence for row in session.execute(oldest) if row.occurred_at < due_before]
            if not due:
                return 0
            session.execute(delete(_table).where(_table.c.sequence.in_(due)))
            session.execute(update(_counts).values(expired=_counts.c.expired + len(due)))
        log.warning(
            "events.expired",
            count=len(due),
            first_sequence=due[0],
            last_sequence=due[-1],
            kept_days=self._kept.days,
        )
        return len(due)
