"""Publishing events to RabbitMQ, with publisher confirms and a limit for every wait."""

import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import amqp
from amqp.exceptions import AMQPError, PreconditionFailed
from kombu.connection import Connection as Broker
from kombu.exceptions import KombuError
from kombu.transport.pyamqp import Connection as PyamqpConnection

from userapi.infrastructure.deadlines import ends_within
from userapi.rabbitmq_nodes import RabbitmqNode, rabbitmq_nodes

from .cloudevents import CONTENT_TYPE
from .publisher import Message, Receipt

CONNECT_SECONDS = 3
HEARTBEAT_SECONDS = 30
# Time without progress after which the broker counts as unavailable, as with a memory alarm.
CONFIRM_SECONDS = 10.0
# Limit for all messages of one call, however slow the broker is.
PUBLISH_SECONDS = 30.0
CLOSE_SECONDS = 2.0
# Unconfirmed messages. With 1 at a time 1 200 messages per second are published, with 256 15 000.
WINDOW = 256
PERSISTENT = 2

# py-amqp raises AttributeError and ValueError, too, when another thread closes its connection.
_FAULTS = (OSError, AMQPError, KombuError, AttributeError, ValueError)


class AmqpPublisher:
    """Publishes to a durable topic exchange of RabbitMQ, persistent, with publisher confirms.

    Connects when there is something to publish, and again after an outage. Of several nodes it
    uses the last one that accepted a connection until that one fails. For one thread.
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
        # The first one is tried first.
        self._nodes = deque(rabbitmq_nodes(url))
        self._exchange = exchange
        self._confirm_seconds = confirm_seconds
        self._publish_seconds = publish_seconds
        self._window = window
        self._link: _Link | None = None

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Publish in this order and wait for the confirms.

        If the node fails, the messages without a result are published to the next one.
        """
        receipt = Receipt()
        for _ in range(len(self._nodes)):
            link = None
            try:
                link = self._connected()
                with ends_within(link.connection, self._publish_seconds):
                    link.publish(_unsettled(messages, receipt), receipt)
            except PreconditionFailed:
                self._drop()
                self._find_refused(messages, receipt)
            except _FAULTS as exc:
                self._drop_node()
                receipt.outage = type(exc).__name__
                # Otherwise no node accepts a connection, or there are no confirms: an alarm of one
                # node blocks publishers on all of them.
                if link is not None and not isinstance(exc, TimeoutError):
                    continue
            else:
                receipt.outage = None
            break
        return receipt

    def obstacle(self) -> str | None:
        """Return the name of the error that prevents publishing now, or None."""
        try:
            self._connected()
        except _FAULTS as exc:
            return type(exc).__name__
        return None

    def keep_alive(self) -> None:
        """Send a heartbeat if due; drop a connection that has ended."""
        if self._link is None:
            return
        try:
            with ends_within(self._link.connection, CLOSE_SECONDS):
                self._link.keep_alive()
        except _FAULTS:
            self._drop_node()

    def close(self) -> None:
        """Close the connection regularly."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            with ends_within(link.connection, CLOSE_SECONDS):
                link.connection.close()
        except _FAULTS:
            link.connection.collect()

    def _connected(self) -> "_Link":
        """Return the connection, or one to the first node that accepts it.

        Raises the error of the last node if there is none.
        """
        attempts_left = len(self._nodes)
        while self._link is None:
            attempts_left -= 1
            try:
                self._link = self._link_to(self._nodes[0])
            except _FAULTS:
                self._nodes.rotate(-1)
                if not attempts_left:
                    raise
        return self._link

    def _link_to(self, node: RabbitmqNode) -> "_Link":
        connection = _connect(node)
        try:
            return _Link(
                connection,
                exchange=self._exchange,
                window=self._window,
                confirm_seconds=self._confirm_seconds,
            )
        except _FAULTS:
            connection.collect()
            raise

    def _drop_node(self) -> None:
        """Drop the connection, if there is one, and try its node last from now on."""
        if self._link is not None:
            self._nodes.rotate(-1)
        self._drop()

    def _drop(self) -> None:
        # Without a closing handshake: a broker that does not read would not reply to it.
        link, self._link = self._link, None
        if link is not None:
            link.connection.collect()

    def _find_refused(self, messages: Sequence[Message], receipt: Receipt) -> None:
        """Find the message for which the broker closed the channel, such as one that is too big.

        The error does not name it, so each message is published separately.
        """
        unsettled = _unsettled(messages, receipt)
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


def _unsettled(messages: Sequence[Message], receipt: Receipt) -> list[Message]:
    """Return the messages without a result."""
    settled = {*receipt.confirmed, *receipt.refused}
    return [message for message in messages if message.id not in settled]


class _Connection(PyamqpConnection):
    """py-amqp's connection. Another thread can shut it down, also while it connects."""

    _opened: Any = None

    def Transport(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - name of the base
        """Return a transport, and keep it for `cut`: the property `transport` would connect."""
        self._opened = super().Transport(*args, **kwargs)
        return self._opened

    def cut(self) -> None:
        """Shut the socket down; the thread that uses it gets an OSError."""
        sock = getattr(self._opened, "sock", None)
        if sock is None:
            return
        try:
            # Not the method of an SSL socket, which another thread may be reading.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            return  # It is closed already.

    def connect(self, callback: Any = None) -> Any:
        """Connect, including the handshake, within a limit that a slow broker cannot exceed."""
        try:
            with ends_within(self, CONNECT_SECONDS + 1):
                return super().connect(callback)
        except _FAULTS:
            self.collect()
            raise


def encryption_of(node: RabbitmqNode) -> dict[str, str | None] | bool:
    """Return how Kombu encrypts a connection to the node; False: not at all."""
    if not node.is_encrypted:
        return False
    # None verifies the name of the URL; without the option no name would be verified.
    return {"server_hostname": None, "ca_certs": node.ca_file}


def _connect(node: RabbitmqNode) -> _Connection:
    options: dict[str, Any] = {
        "read_timeout": CONNECT_SECONDS,
        "write_timeout": CONNECT_SECONDS,
        "client_properties": {"connection_name": "userapi-worker"},
    }
    broker = Broker(  # type: ignore[no-untyped-call]
        node.url,
        connect_timeout=CONNECT_SECONDS,
        heartbeat=HEARTBEAT_SECONDS,
        ssl=encryption_of(node),
        transport_options=options,
    )
    transport = broker.transport
    transport.Connection = _Connection
    # Not broker.connect(), which tries twice with a pause: the relay has its own back-off.
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
        """Publish and fill the receipt. Raises TimeoutError and the errors of py-amqp."""
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
        """Read what has arrived and send a heartbeat if due."""
        try:
            self.connection.drain_events(timeout=0.001)
        except TimeoutError:
            pass  # Nothing has arrived, as expected.
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
                # In short steps: an incoming heartbeat would extend a longer wait.
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
        # Tags are added in ascending order, and a dict keeps it.
        settled = []
        for first in list(self._outstanding):
            if first > tag:
                break
            settled.append(self._outstanding.pop(first))
        return settled
