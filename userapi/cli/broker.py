"""The events that RabbitMQ delivers, for `flask events tail --broker`."""

from collections.abc import Iterator

import amqp
import click
from kombu.connection import Connection as Broker

POLL_SECONDS = 1.0


def delivered_events(url: str, *, exchange: str) -> Iterator[str]:
    """Yield each event that RabbitMQ delivers from now on. Raises ClickException."""
    waiting: list[str] = []
    broker = Broker(  # type: ignore[no-untyped-call]
        url,
        connect_timeout=3,
        ssl={"server_hostname": None} if url.startswith("amqps") else False,
    )
    try:
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
        broker.release()  # type: ignore[no-untyped-call]


def _text(message: amqp.Message) -> str:
    body = message.body
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
