"""Publishing events to RabbitMQ, with publisher confirms and a limit for every wait."""

import time
from collections import deque
from collections.abc import Sequence

from amqp.exceptions import PreconditionFailed

from userapi.infrastructure.deadlines import ends_within
from userapi.rabbitmq_nodes import RabbitmqNode, rabbitmq_nodes

from .publisher import Message, Receipt
from .rabbitmq_link import FAULTS, OPEN_SECONDS, Link, connect

# Time without progress after which the broker counts as unavailable, as with a memory alarm.
CONFIRM_SECONDS = 10.0
# Limit for all messages of one call, however slow the broker is.
PUBLISH_SECONDS = 30.0
CLOSE_SECONDS = 2.0
# Unconfirmed messages. With 1 at a time 1 200 messages per second are published, with 256 15 000.
WINDOW = 256


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
        self._link: Link | None = None

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
            except FAULTS as exc:
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
        except FAULTS as exc:
            return type(exc).__name__
        return None

    def keep_alive(self) -> None:
        """Send a heartbeat if due; drop a connection that has ended."""
        if self._link is None:
            return
        try:
            with ends_within(self._link.connection, CLOSE_SECONDS):
                self._link.keep_alive()
        except FAULTS:
            self._drop_node()

    def close(self) -> None:
        """Close the connection regularly."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            with ends_within(link.connection, CLOSE_SECONDS):
                link.connection.close()
        except FAULTS:
            link.connection.collect()

    def _connected(self) -> Link:
        """Return the connection, or one to the first node that accepts it.

        Raises the error of the last node if there is none.
        """
        attempts_left = len(self._nodes)
        while self._link is None:
            attempts_left -= 1
            try:
                self._link = self._link_to(self._nodes[0])
            except FAULTS:
                self._nodes.rotate(-1)
                if not attempts_left:
                    raise
        return self._link

    def _link_to(self, node: RabbitmqNode) -> Link:
        started = time.monotonic()
        connection = connect(node)
        try:
            return Link(
                connection,
                exchange=self._exchange,
                window=self._window,
                confirm_seconds=self._confirm_seconds,
                open_seconds=started + OPEN_SECONDS - time.monotonic(),
            )
        except FAULTS:
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
