"""The events that RabbitMQ delivers, for `flask events tail --broker`."""

from collections.abc import Iterator
from contextlib import suppress

import amqp
import click
from kombu.connection import Connection as Broker

from userapi.events.rabbitmq_link import encryption_of
from userapi.rabbitmq_nodes import RabbitmqNode, rabbitmq_nodes

CONNECT_SECONDS = 3
POLL_SECONDS = 1.0


def delivered_events(url: str, *, exchange: str) -> Iterator[str]:
    """Yield each event that RabbitMQ delivers from now on. Raises ClickException."""
    waiting: list[str] = []
    broker = None
    try:
        broker = _connected(url)
        channel: amqp.Channel = broker.channel()  # type: ignore[no-untyped-call]
        channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, exchange, "#")
        channel.basic_consume(queue, no_ack=True, callback=lambda m: waiting.append(_text(m)))
        while True:
            try:
                broker.drain_events(timeout=POLL_SECONDS)  # type: ignore[no-untyped-call]
            except TimeoutError:
                continue
            yield from waiting
            waiting.clear()
    except (OSError, amqp.AMQPError) as exc:
        raise click.ClickException(
            "RabbitMQ does not answer. Run `flask doctor` for details."
        ) from exc
    finally:
        if broker is not None:
            broker.release()  # type: ignore[no-untyped-call]


def _connected(url: str) -> Broker:
    """Return a connection to the first node that accepts one. Raises the error of the last one."""
    *others, last = rabbitmq_nodes(url)
    for node in others:
        with suppress(OSError, amqp.AMQPError):
            return _connected_to(node)
    return _connected_to(last)


def _connected_to(node: RabbitmqNode) -> Broker:
    broker = Broker(  # type: ignore[no-untyped-call]
        node.url, connect_timeout=CONNECT_SECONDS, ssl=encryption_of(node)
    )
    broker.connect()  # type: ignore[no-untyped-call]
    return broker


def _text(message: amqp.Message) -> str:
    body = message.body
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
