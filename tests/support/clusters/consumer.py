"""A consumer of the service's events that records when each message came."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import amqp
from kombu.connection import Connection as Broker

POLL_SECONDS = 0.01


class Consumer:
    """Reads from a quorum queue that is bound to all events of an exchange."""

    def __init__(self, url: str, exchange: str, queue: str) -> None:
        self._url = url
        self._queue = queue
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._lock = threading.Lock()
        self._received: list[tuple[float, dict[str, Any]]] = []
        with self._channel() as channel:
            channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
            channel.queue_declare(
                queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
            )
            channel.queue_bind(queue, exchange, "#")

    @property
    def received(self) -> list[tuple[float, dict[str, Any]]]:
        """The messages so far, each with the moment when it came."""
        with self._lock:
            return list(self._received)

    @property
    def created(self) -> set[str]:
        """The users of whose creation there was an event."""
        return {e["subject"] for _, e in self.received if e["type"] == "user.created"}

    def received_after(self, moment: float) -> int:
        """Return how many messages came after a moment."""
        return sum(at > moment for at, _ in self.received)

    def first_after(self, moment: float) -> float:
        """Return when the first message after a moment came."""
        return min(at for at, _ in self.received if at > moment)

    def longest_gap(self, since: float) -> float:
        """Return the longest time without a message, from a moment to the last message."""
        moments = [since, *(at for at, _ in self.received if at > since)]
        return max(
            (later - earlier for earlier, later in zip(moments, moments[1:], strict=False)),
            default=0.0,
        )

    def first_deliveries(self) -> list[dict[str, Any]]:
        """Return the events without repeated deliveries."""
        first: dict[str, dict[str, Any]] = {}
        for _, event in self.received:
            first.setdefault(event["id"], event)
        return list(first.values())

    def out_of_order(self) -> list[str]:
        """Return the subjects of which an event came for the first time after a later one."""
        newest: Counter[str] = Counter()
        wrong = []
        for event in self.first_deliveries():
            if int(event["sequence"]) < newest[event["subject"]]:
                wrong.append(event["subject"])
            newest[event["subject"]] = int(event["sequence"])
        return wrong

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)

    def _consume(self) -> None:
        with self._channel() as channel:
            while not self._over.wait(POLL_SECONDS):
                while (message := channel.basic_get(self._queue, no_ack=True)) is not None:
                    with self._lock:
                        self._received.append((time.monotonic(), json.loads(message.body)))

    @contextmanager
    def _channel(self) -> Iterator[amqp.Channel]:
        broker = Broker(self._url)  # type: ignore[no-untyped-call]
        try:
            yield broker.channel()  # type: ignore[no-untyped-call]
        finally:
            broker.release()  # type: ignore[no-untyped-call]
