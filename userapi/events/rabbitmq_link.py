"""A connection to one RabbitMQ node with a channel in confirm mode, and a limit for every wait."""

import socket
import time
from collections.abc import Sequence
from typing import Any

import amqp
from amqp.exceptions import AMQPError
from kombu.connection import Connection as Broker
from kombu.exceptions import KombuError
from kombu.transport.pyamqp import Connection as PyamqpConnection

from userapi.infrastructure.deadlines import ends_within
from userapi.rabbitmq_nodes import RabbitmqNode

from .cloudevents import CONTENT_TYPE
from .publisher import Message, Receipt

# For each wait, and for all waits until a node is ready to receive events.
CONNECT_SECONDS = 3
OPEN_SECONDS = CONNECT_SECONDS + 1
HEARTBEAT_SECONDS = 30
PERSISTENT = 2

# py-amqp raises AttributeError and ValueError, too, when another thread closes its connection.
FAULTS = (OSError, AMQPError, KombuError, AttributeError, ValueError)


class Connection(PyamqpConnection):
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
            with ends_within(self, OPEN_SECONDS):
                return super().connect(callback)
        except FAULTS:
            self.collect()
            raise


def encryption_of(node: RabbitmqNode) -> dict[str, str | None] | bool:
    """Return how Kombu encrypts a connection to the node; False: not at all."""
    if not node.is_encrypted:
        return False
    # None verifies the name of the URL; without the option no name would be verified.
    return {"server_hostname": None, "ca_certs": node.ca_file}


def connect(node: RabbitmqNode) -> Connection:
    """Connect to a node. Raises one of `FAULTS`."""
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
    transport.Connection = Connection
    # Not broker.connect(), which tries twice with a pause: the relay has its own back-off.
    connection: Connection = transport.establish_connection()
    return connection


class Link:
    """A connection with a channel in confirm mode."""

    def __init__(
        self,
        connection: Connection,
        *,
        exchange: str,
        window: int,
        confirm_seconds: float,
        open_seconds: float,
    ) -> None:
        """`open_seconds` limits the time to open the channel and to declare the exchange."""
        self.connection = connection
        self._exchange = exchange
        self._window = window
        self._confirm_seconds = confirm_seconds
        self._outstanding: dict[int, str] = {}
        self._tag = 0
        self._receipt = Receipt()
        with ends_within(connection, open_seconds):
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
