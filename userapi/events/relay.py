"""Publishing the outbox: in order for each subject, at least once, without loss.

Rows are selected by "not sent", not by "after the last one": the sequence number is assigned when
a row is inserted, and a transaction with an earlier number may commit later.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import structlog
from sqlalchemy import Row, String, cast, select, update

from userapi.clock import Clock
from userapi.errors import Unavailable
from userapi.infrastructure.database import reading, table_of, transaction

from .cloudevents import envelope
from .leadership import Leadership
from .models import OutboxEvent, PublishedEvents
from .publisher import Message, Publisher

log = structlog.get_logger(__name__)

BATCH = 500
FIRST_DELAY = timedelta(seconds=1)
MAX_DELAY = timedelta(minutes=5)
# About nine minutes. Failures during an outage of the broker do not count.
ATTEMPTS_BEFORE_PARKED = 10

_table = table_of(OutboxEvent)
_published = table_of(PublishedEvents)
_waiting = (_table.c.sent_at.is_(None), _table.c.parked_at.is_(None))


class BrokerAway(Unavailable):
    """The broker does not accept or confirm messages. Events wait in the outbox."""

    code = "broker_unavailable"
    title = "RabbitMQ does not answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """An event to publish. Without a message it cannot be serialized."""

    sequence: int
    id: str
    subject: str
    attempts: int
    message: Message | None


class Relay:
    """Publishes the events in the outbox. Not thread-safe."""

    def __init__(self, *, clock: Clock, publisher: Publisher, leadership: Leadership) -> None:
        self._clock = clock
        self._publisher = publisher
        self._leadership = leadership
        self._broker_was_away = False

    def publish_due(self, limit: int = BATCH) -> int:
        """Publish up to `limit` events and return how many; 0 while another worker has the lock.

        A rejected event waits, together with the later ones of its subject; after several attempts
        it is parked, and the others are published. Raises BrokerAway, which counts no attempt.
        """
        if not self._leadership.holds():
            return 0
        # After an outage one event is published as a test: a broker with a memory alarm buffers
        # messages that it does not confirm, and all of them would arrive twice.
        due = self._due(1 if self._broker_was_away else limit)
        if not due:
            self._publisher.keep_alive()
            return 0
        sent: list[_Due] = []
        refused: list[_Due] = [event for event in due if event.message is None]
        outage = None
        for wave in _waves(due):
            held_back = {event.subject for event in refused}
            going = [event for event in wave if event.subject not in held_back]
            receipt = self._publisher.publish([e.message for e in going if e.message is not None])
            confirmed, rejected = set(receipt.confirmed), set(receipt.refused)
            sent += [event for event in going if event.id in confirmed]
            refused += [event for event in going if event.id in rejected]
            outage = receipt.outage
            if outage:
                break
        self._broker_was_away = outage is not None
        self._store_results(sent, refused)
        if outage:
            raise BrokerAway(outage)
        return len(sent)

    def close(self) -> None:
        """Close the connection, and release the lock for another worker."""
        self._publisher.close()
        self._leadership.release()

    def _due(self, limit: int) -> list[_Due]:
        now = self._clock.now()
        held_back = select(_table.c.subject).where(*_waiting, _table.c.next_attempt_at > now)
        query = (
            # As text: an invalid document must not block all others.
            select(
                _table.c.sequence,
                _table.c.id,
                _table.c.type,
                _table.c.subject,
                _table.c.occurred_at,
                _table.c.correlation_id,
                _table.c.traceparent,
                _table.c.attempts,
                cast(_table.c.data, String).label("data"),
            )
            .where(*_waiting, _table.c.subject.not_in(held_back))
            .order_by(_table.c.sequence)
            .limit(limit)
        )
        with reading() as connection:
            rows = connection.execute(query).all()
        return [_due(row, self._leadership.history) for row in rows]

    def _store_results(self, sent: Sequence[_Due], refused: Sequence[_Due]) -> None:
        """Store the results. After a crash before this, the events are published again."""
        if not sent and not refused:
            return
        now = self._clock.now()
        with transaction() as session:
            if sent:
                session.execute(
                    update(_table)
                    .where(_table.c.sequence.in_([event.sequence for event in sent]))
                    .values(
                        sent_at=now,
                        attempts=_table.c.attempts + 1,
                        next_attempt_at=None,
                        last_error=None,
                    )
                )
                session.execute(update(_published).values(total=_published.c.total + len(sent)))
            for event in refused:
                attempts = event.attempts + 1
                parked = attempts >= ATTEMPTS_BEFORE_PARKED
                session.execute(
                    update(_table)
                    .where(_table.c.sequence == event.sequence)
                    .values(
                        attempts=attempts,
                        next_attempt_at=None if parked else now + _delay(attempts),
                        parked_at=now if parked else None,
                        last_error=_fault(event),
                    )
                )
        for event in refused:
            parked = event.attempts + 1 >= ATTEMPTS_BEFORE_PARKED
            log.warning(
                "event.parked" if parked else "event.refused",
                event_id=event.id,
                sequence=event.sequence,
                fault=_fault(event),
            )
        if sent:
            log.debug("events.published", count=len(sent), last_sequence=sent[-1].sequence)


def _due(row: Row[Any], history: str | None) -> _Due:
    try:
        body = envelope(
            id=row.id,
            type=row.type,
            subject=row.subject,
            occurred_at=row.occurred_at,
            sequence=row.sequence,
            history=history,
            correlation_id=row.correlation_id,
            traceparent=row.traceparent,
            data=orjson.loads(row.data),
        )
    except (TypeError, ValueError):
        message = None
    else:
        message = Message(id=str(row.id), routing_key=row.type, body=body)
    return _Due(
        sequence=row.sequence,
        id=str(row.id),
        subject=row.subject,
        attempts=row.attempts,
        message=message,
    )


def _waves(due: Iterable[_Due]) -> list[list[_Due]]:
    """Return the events in groups with no subject twice in any, in the order to publish them.

    Within a group many confirms are outstanding. With two events of one subject among them, the
    broker could reject the first and accept the second.
    """
    waves: list[list[_Due]] = []
    seen: Counter[str] = Counter()
    for event in due:
        if seen[event.subject] == len(waves):
            waves.append([])
        waves[seen[event.subject]].append(event)
        seen[event.subject] += 1
    return waves


def _delay(attempts: int) -> timedelta:
    doublings: int = min(attempts - 1, 20)
    return min(FIRST_DELAY * (1 << doublings), MAX_DELAY)


def _fault(event: _Due) -> str:
    return "refused by the broker" if event.message else "cannot be written as JSON"
