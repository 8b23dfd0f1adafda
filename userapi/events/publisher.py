"""Handing events to the broker: RabbitMQ, or a list in memory for tests.

A publisher tells what became of each message: confirmed, refused, or unknown because the broker
went away. What is neither confirmed nor refused may have arrived or not and is published again.
"""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import amqp
from amqp.exceptions import AMQPError, PreconditionFailed
from kombu.connection import Connection as Broker
from kombu.exceptions import KombuError
from kombu.transport.pyamqp import Connection as PyamqpConnection

from userapi.infrastructure.deadlines import ends_within

from .cloudevents import CONTENT_TYPE

CONNECT_SECONDS = 3
HEARTBEAT_SECONDS = 30
# Without progress for so long the broker counts as away. One under a memory alarm reads no more.
CONFIRM_SECONDS = 10.0
# For all messages of one call, however slowly the broker goes on.
PUBLISH_SECONDS = 30.0
CLOSE_SECONDS = 2.0
# Messages under way without a confirm. One at a time makes 1 200 a second, 256 make 15 000.
WINDOW = 256
PERSISTENT = 2

# py-amqp raises AttributeError and ValueError, too, when a connection ends under its hands.
_FAULTS = (OSError, AMQPError, KombuError, AttributeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event as it goes to the broker."""

    id: str
    routing_key: str
    body: bytes


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What became of the messages, by their ids. `outage` tells why the broker counts as away."""

    confirmed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    outage: str | None = None


class Publisher(Protocol):
    """Hands messages to a broker."""

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Publish in this order and wait for the confirms. Raises nothing for a broker's fault."""
        ...

    def keep_alive(self) -> None:
        """Show a sign of life; called every few seconds while there is nothing to publish."""
        ...

    def close(self) -> None:
        """End the connection, if there is one."""
        ...


class MemoryPublisher:
    """Keeps what is published in a list; can be away or refuse, as a broker can."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.refuses: Callable[[Message], bool] = lambda message: False
        self.is_away = False

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Keep the messages that are not refused."""
        receipt = Receipt()
        for message in messages:
            if self.is_away:
                receipt.outage = "away"
                break
            if self.refuses(message):
                receipt.refused.append(message.id)
                continue
            self.published.append(message)
            receipt.confirmed.append(message.id)
        return receipt

    def keep_alive(self) -> None:
        """Do nothing: a list does not go away."""

    def close(self) -> None:
        """Do nothing: there is no connection."""


class AmqpPublisher:
    """Publishes to a durable topic exchange of RabbitMQ, persistent, with publisher confirms.

    Connects when there is something to publish, and again after an outage. For one thread.
    """

    def __init__(
        self,
        url: str,
        *,
        exchange: str,
        confirm_seconds: float = CONFIRM_SECONDS,
        publish_seconds: float = PUBLISH_SECONDS,
        window: int = WINDOW,
    ) -> None:
        self._url = url
        self._exchange = exchange
        self._confirm_seconds = confirm_seconds
        self._publish_seconds = publish_seconds
        self._window = window
        self._link: _Link | None = None

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Publish in this order and wait for the confirms."""
        receipt = Receipt()
        try:
            link = self._connected()
            with ends_within(link.connection, self._publish_seconds):
                link.publish(messages, receipt)
        except PreconditionFailed:
            self._drop()
            self._find_refused(messages, receipt)
        except _FAULTS as exc:
            self._drop()
            receipt.outage = type(exc).__name__
        return receipt

    def obstacle(self) -> str | None:
        """Return the name of what keeps messages from being published now, or None."""
        try:
            self._connected()
        except _FAULTS as exc:
            return type(exc).__name__
        return None

    def keep_alive(self) -> None:
        """Send a heartbeat when it is time; let go of a connection that has ended."""
        if self._link is None:
            return
        try:
            with ends_within(self._link.connection, CLOSE_SECONDS):
                self._link.keep_alive()
        except _FAULTS:
            self._drop()

    def close(self) -> None:
        """End the connection in order."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            with ends_within(link.connection, CLOSE_SECONDS):
                link.connection.close()
        except _FAULTS:
            link.connection.collect()

    def _connected(self) -> "_Link":
        if self._link is None:
            connection = _connect(self._url)
            try:
                self._link = _Link(
                    connection,
                    exchange=self._exchange,
                    window=self._window,
                    confirm_seconds=self._confirm_seconds,
                )
            except _FAULTS:
                connection.collect()
                raise
        return self._link

    def _drop(self) -> None:
        # No farewell: a broker that does not read would not read that either.
        link, self._link = self._link, None
        if link is not None:
            link.connection.collect()

    def _find_refused(self, messages: Sequence[Message], receipt: Receipt) -> None:
        """Find out which message made the broker close the channel, such as one that is too big.

        It does not say so itself; sent alone, the culprit is known.
        """
        settled = {*receipt.confirmed, *receipt.refused}
        unsettled = [message for message in messages if message.id not in settled]
        if len(unsettled) == 1:
            receipt.refused.append(unsettled[0].id)
            return
        for message in unsettled:
            part = self.publish([message])
            receipt.confirmed += part.confirmed
            receipt.refused += part.refused
            receipt.outage = part.outage
            if part.outage:
                return


class _Connection(PyamqpConnection):
    """py-amqp's connection; another thread can cut it, also while it is being made."""

    def cut(self) -> None:
        """Break the connection; the thread that uses it gets an OSError."""
        sock = getattr(self._transport, "sock", None)
        if sock is None:
            return
        try:
            # Not the method of an SSL socket, which would pull the rug from under its reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            return  # It broke by itself.

    def connect(self, callback: Any = None) -> Any:
        """Connect and shake hands, within a time that a slow broker cannot stretch."""
        try:
            with ends_within(self, CONNECT_SECONDS + 1):
                return super().connect(callback)
        except _FAULTS:
            self.collect()
            raise


def _connect(url: str) -> _Connection:
    options: dict[str, Any] = {
        "read_timeout": CONNECT_SECONDS,
        "write_timeout": CONNECT_SECONDS,
        "client_properties": {"connection_name": "userapi-worker"},
    }
    if url.startswith("amqps://"):
        # None takes the name from the URL; left out, no name would be checked at all.
        options["ssl"] = {"server_hostname": None}
    broker = Broker(  # type: ignore[no-untyped-call]
        url,
        connect_timeout=CONNECT_SECONDS,
        heartbeat=HEARTBEAT_SECONDS,
        ssl=options.pop("ssl", False),
        transport_options=options,
    )
    transport = broker.transport
    transport.Connection = _Connection
    # Not broker.connect(), which tries twice and sleeps in between: the relay has its own back-off.
    connection: _Connection = transport.establish_connection()
    return connection


class _Link:
    """A connection with a channel in confirm mode."""

    def __init__(
        self, connection: _Connection, *, exchange: str, window: int, confirm_seconds: float
    ) -> None:
        self.connection = connection
        self._exchange = exchange
        self._window = window
        self._confirm_seconds = confirm_seconds
        self._outstanding: dict[int, str] = {}
        self._tag = 0
        self._receipt = Receipt()
        with ends_within(connection, CONNECT_SECONDS + 1):
            self._channel = connection.channel()
            self._channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
            self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._acknowledged)
        self._channel.events["basic_nack"].add(self._refused)

    def publish(self, messages: Sequence[Message], receipt: Receipt) -> None:
        """Publish and fill the receipt. Raises what py-amqp raises, TimeoutError among it."""
        self._receipt = receipt
        for message in messages:
            self._wait(fewer_than=self._window)
            self._tag += 1
            self._outstanding[self._tag] = message.id
            self._channel.basic_publish(
                amqp.Message(
                    message.body,
                    content_type=CONTENT_TYPE,
                    delivery_mode=PERSISTENT,
                    message_id=message.id,
                ),
                exchange=self._exchange,
                routing_key=message.routing_key,
                timeout=self._confirm_seconds,
            )
        self._wait(fewer_than=1)

    def keep_alive(self) -> None:
        """Take what has come in and send a heartbeat when it is time."""
        try:
            self.connection.drain_events(timeout=0.001)
        except TimeoutError:
            pass  # Nothing has come, as it should be.
        self.connection.heartbeat_tick()

    def _wait(self, *, fewer_than: int) -> None:
        waiting = len(self._outstanding)
        deadline = time.monotonic() + self._confirm_seconds
        while len(self._outstanding) >= fewer_than:
            if len(self._outstanding) < waiting:
                waiting = len(self._outstanding)
                deadline = time.monotonic() + self._confirm_seconds
            if time.monotonic() > deadline:
                raise TimeoutError
            try:
                # In short pieces: a heartbeat that comes in would prolong a longer one.
                self.connection.drain_events(timeout=min(1.0, self._confirm_seconds))
            except TimeoutError:
                continue

    def _acknowledged(self, tag: int, multiple: bool) -> None:
        self._receipt.confirmed += self._settle(tag, multiple)

    def _refused(self, tag: int, multiple: bool) -> None:
        self._receipt.refused += self._settle(tag, multiple)

    def _settle(self, tag: int, multiple: bool) -> list[str]:
        if not multiple:
            return [self._outstanding.pop(tag)]
        # Tags are added in growing order, and a dict keeps it.
        settled = []
        for first in list(self._outstanding):
            if first > tag:
                break
            settled.append(self._outstanding.pop(first))
        return settled
