"""Receives the events of the service. Needs the extra `events`."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import kombu
from kombu.exceptions import OperationalError

from userapi_client.errors import UserApiError

log = logging.getLogger("userapi_client")
_library: Any = kombu  # It has no annotations.

HEARTBEAT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0


class Reject(UserApiError):
    """Raised by a handler for an event that it can never apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event (CloudEvents 1.0)."""

    id: str
    type: str
    subject: str
    """The id of a user or a service account, or the name of a role."""
    sequence: int
    """Increases for each subject within one `history`. An event that is delivered again has the
    same number."""
    history: int | None
    """The timeline of the service's database; None on SQLite.

    A larger number than before means that the database has failed over: with asynchronous
    replication it may have lost the last changes, and reuses their numbers for other events.
    """
    time: datetime
    data: Mapping[str, Any] = field(repr=False)
    correlation_id: str | None
    traceparent: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def read_event(body: bytes | str) -> Event:
    """Return the event that a message contains. Raises ValueError for any other body."""
    try:
        found = json.loads(body)
    except RecursionError as exc:
        raise ValueError("The body is nested too deeply.") from exc
    if not isinstance(found, dict):
        raise ValueError("The body is not an object.")
    texts = {name: found.get(name) for name in ("id", "type", "subject", "sequence", "time")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} is missing.")
    sequence, history = _number(texts["sequence"]), found.get("history")
    data = found.get("data")
    if not isinstance(data, dict):
        raise ValueError("data is not an object.")
    return Event(
        id=str(texts["id"]),
        type=str(texts["type"]),
        subject=str(texts["subject"]),
        sequence=sequence,
        history=None if history is None else _number(history),
        time=datetime.fromisoformat(str(texts["time"])),
        data=data,
        correlation_id=_optional(found.get("correlationid")),
        traceparent=_optional(found.get("traceparent")),
        raw=found,
    )


class EventConsumer:
    """Passes every event to a function, at least once, and acknowledges it afterwards.

    The queue is durable: the broker stores its events while no process reads it. Several processes
    may read the same queue.
    """

    def __init__(
        self,
        amqp_url: str,
        queue: str,
        *,
        bindings: Iterable[str] = ("#",),
        exchange: str = "user_events",
        prefetch: int = 20,
        dead_letters: bool = True,
    ) -> None:
        """`bindings` are types of events, also with wildcards such as `user.*`.

        Messages that cannot be read, and those that the handler rejects, go to the queue
        `<queue>.dead`. Without `dead_letters` they are dropped.
        """
        self._amqp_url = amqp_url
        self._queue = queue
        self._bindings = tuple(bindings)
        self._exchange = exchange
        self._prefetch = prefetch
        self._dead_letters = dead_letters
        self._stopping = threading.Event()
        self._failure: BaseException | None = None

    def run(self, handler: Callable[[Event], None]) -> None:
        """Receive events until `stop`. Reconnects after an outage of the broker.

        An error of the handler other than Reject leaves the event in the queue and is raised.
        Raises amqp.AMQPError if the broker rejects the user or the queue.
        """
        wait, self._failure = POLL_SECONDS, None
        while not self._stopping.is_set():
            connection = _library.Connection(
                self._amqp_url,
                heartbeat=HEARTBEAT_SECONDS,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
            )
            interruptions = (OperationalError, *connection.connection_errors)
            try:
                connection.connect()
                wait = POLL_SECONDS
                self._receive(connection, handler)
            except interruptions as exc:
                if self._failure is not None:
                    raise
                # Not the text: it may contain the URL with its password.
                log.warning("userapi.events_interrupted: %s", type(exc).__name__)
                self._stopping.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            finally:
                # Unacknowledged events return to the queue.
                with suppress(*interruptions):
                    connection.release()

    def stop(self) -> None:
        """Stop `run` after the event that is being handled. Signal handlers may call it."""
        self._stopping.set()

    def _receive(self, connection: Any, handler: Callable[[Event], None]) -> None:
        channel = connection.channel()
        queue = self._declare(channel)

        def handle(message: Any) -> None:
            self._handle(message, handler)

        with _library.Consumer(
            channel, [queue], on_message=handle, accept=None, prefetch_count=self._prefetch
        ):
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_SECONDS)
                if self._failure is not None:
                    raise self._failure  # Raised by the handler.
                connection.heartbeat_check()

    def _declare(self, channel: Any) -> Any:
        arguments = {}
        if self._dead_letters:
            name = f"{self._queue}.dead"
            dead = _library.Exchange(name, type="fanout", durable=True)
            _library.Queue(name, dead, durable=True)(channel).declare()
            arguments = {"x-dead-letter-exchange": name}
        exchange = _library.Exchange(self._exchange, type="topic", durable=True)
        exchange(channel).declare()
        queue = _library.Queue(
            self._queue, exchange=None, durable=True, queue_arguments=arguments or None
        )(channel)
        queue.queue_declare()
        for binding in self._bindings:
            queue.bind_to(exchange=exchange, routing_key=binding)
        return queue

    def _handle(self, message: Any, handler: Callable[[Event], None]) -> None:
        if self._failure is not None or self._stopping.is_set():
            return  # Delivered while the consumer stops. It returns to the queue.
        try:
            event = read_event(message.body)
        except ValueError as exc:
            log.warning("userapi.event_rejected: %s", exc)
            message.reject(requeue=False)
            return
        try:
            handler(event)
        except Reject as exc:
            log.warning("userapi.event_rejected: %s %s: %s", event.type, event.id, exc)
            message.reject(requeue=False)
        except BaseException as exc:
            # An OSError of the handler is not one of the connection either.
            self._failure = exc
            raise
        else:
            message.ack()


def _number(text: object) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit():
        raise ValueError("sequence or history is not a decimal string.")
    return int(text)


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) else None
