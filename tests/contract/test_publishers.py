"""Both publishers, in memory and on RabbitMQ, and behaviour that needs a real broker."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import amqp
import pytest
from kombu.connection import Connection as Broker

from tests.support.polling import least, least_seconds, wait_until
from tests.support.proxy import FaultProxy
from tests.support.servers import RabbitmqServer, started
from userapi.events.publisher import MemoryPublisher, Message, Publisher
from userapi.events.rabbitmq import AmqpPublisher


def message(number: int, *, key: str = "user.updated", body: bytes = b"{}") -> Message:
    return Message(id=f"id-{number}", routing_key=key, body=body)


class Bench(Protocol):
    """A publisher, and faults of its broker."""

    publisher: Publisher

    def refuse(self, key: str) -> None:
        """Make the broker reject messages with this routing key."""

    def take_away(self) -> None:
        """Make the broker unavailable."""

    def bring_back(self) -> None:
        """Make the broker available again."""

    def received(self) -> list[str]:
        """Return the ids of what has arrived."""


class MemoryBench:
    def __init__(self) -> None:
        self.memory = MemoryPublisher()
        self.publisher: Publisher = self.memory

    def refuse(self, key: str) -> None:
        self.memory.refuses = lambda message: message.routing_key == key

    def take_away(self) -> None:
        self.memory.is_away = True

    def bring_back(self) -> None:
        self.memory.is_away = False

    def received(self) -> list[str]:
        return [message.id for message in self.memory.published]


class AmqpBench:
    def __init__(self, url: str, exchange: str) -> None:
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        self.proxy = FaultProxy(parts.hostname or "", parts.port or 5672)
        self.url = urlunsplit(
            parts._replace(netloc=f"{account}@{self.proxy.host}:{self.proxy.port}")
        )
        self.exchange = exchange
        self.publisher: Publisher = AmqpPublisher(
            self.url, exchange=exchange, confirm_seconds=1, publish_seconds=3
        )
        self.direct = Broker(url)  # type: ignore[no-untyped-call]
        self.channel: amqp.Channel = self.direct.channel()  # type: ignore[no-untyped-call]
        self.channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
        self.queue = self.channel.queue_declare(exclusive=True).queue
        self.channel.queue_bind(self.queue, exchange, "#")

    def refuse(self, key: str) -> None:
        full = self.channel.queue_declare(
            exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        ).queue
        self.channel.queue_bind(full, self.exchange, key)
        # Fills the queue: every later message is rejected.
        self.channel.basic_publish(amqp.Message("{}"), exchange="", routing_key=full)
        wait_until(lambda: self.channel.queue_declare(full, passive=True).message_count)

    def take_away(self) -> None:
        self.proxy.refuse()

    def bring_back(self) -> None:
        self.proxy.pass_on()

    def messages(self) -> list[amqp.Message]:
        found = []
        while (one := self.channel.basic_get(self.queue, no_ack=True)) is not None:
            found.append(one)
        return found

    def received(self) -> list[str]:
        return [one.properties["message_id"] for one in self.messages()]

    def close(self) -> None:
        self.publisher.close()
        self.channel.exchange_delete(self.exchange)
        self.direct.release()  # type: ignore[no-untyped-call]
        self.proxy.close()


@pytest.fixture
def rabbitmq(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[AmqpBench]:
    bench = AmqpBench(rabbitmq_url, rabbitmq_exchange)
    yield bench
    bench.close()


@pytest.fixture(params=["memory", "rabbitmq"])
def bench(request: pytest.FixtureRequest) -> Any:
    return MemoryBench() if request.param == "memory" else request.getfixturevalue("rabbitmq")


def test_messages_arrive_in_their_order(bench: Bench) -> None:
    receipt = bench.publisher.publish([message(n) for n in range(600)])

    expected = [f"id-{n}" for n in range(600)]
    assert sorted(receipt.confirmed) == sorted(expected)
    assert (receipt.refused, receipt.outage) == ([], None)
    assert bench.received() == expected


def test_a_refused_message_is_named_and_the_others_arrive(bench: Bench) -> None:
    bench.refuse("user.deleted")

    receipt = bench.publisher.publish([message(1), message(2, key="user.deleted"), message(3)])

    assert receipt.refused == ["id-2"]
    assert sorted(receipt.confirmed) == ["id-1", "id-3"]
    assert receipt.outage is None


def test_an_unavailable_broker_is_reported_and_confirms_nothing(bench: Bench) -> None:
    bench.take_away()

    receipt = bench.publisher.publish([message(1)])

    assert receipt.confirmed == receipt.refused == []
    assert receipt.outage
    assert bench.received() == []


def test_a_publisher_continues_after_an_outage(bench: Bench) -> None:
    bench.publisher.publish([message(1)])
    bench.take_away()
    bench.publisher.publish([message(2)])
    bench.bring_back()

    receipt = bench.publisher.publish([message(2), message(3)])

    assert sorted(receipt.confirmed) == ["id-2", "id-3"]
    assert bench.received() == ["id-1", "id-2", "id-3"]


def test_publishing_no_messages_reports_no_outage(bench: Bench) -> None:
    assert bench.publisher.publish([]).outage is None


def test_a_publisher_can_be_closed_twice_and_used_again(bench: Bench) -> None:
    bench.publisher.publish([message(1)])
    bench.publisher.close()
    bench.publisher.close()

    assert bench.publisher.publish([message(2)]).confirmed == ["id-2"]


def test_a_message_is_persistent_and_has_its_content_type(rabbitmq: AmqpBench) -> None:
    rabbitmq.publisher.publish([message(1, key="user.created", body=b'{"a":1}')])

    (found,) = rabbitmq.messages()
    assert found.body == b'{"a":1}' or found.body == '{"a":1}'
    assert found.delivery_info["routing_key"] == "user.created"
    assert found.properties["delivery_mode"] == 2
    assert found.properties["content_type"] == "application/cloudevents+json"


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["black_hole", "trickle"])
def test_a_broker_that_stops_answering_is_waited_for_no_longer_than_a_bound(
    rabbitmq: AmqpBench, fault: str
) -> None:
    def measure() -> float:
        rabbitmq.proxy.pass_on()
        wait_until(lambda: rabbitmq.publisher.publish([message(1)]).confirmed)
        getattr(rabbitmq.proxy, fault)()
        begun = time.monotonic()
        receipt = rabbitmq.publisher.publish([message(n) for n in range(2, 5)])
        seconds = time.monotonic() - begun
        assert receipt.confirmed == []
        assert receipt.outage
        return seconds

    assert least(measure, below=4) < 4


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["black_hole", "trickle"])
def test_a_handshake_ends_though_the_broker_does_not_answer_it(
    rabbitmq: AmqpBench, fault: str
) -> None:
    getattr(rabbitmq.proxy, fault)()

    def publish() -> None:
        assert rabbitmq.publisher.publish([message(1)]).outage

    assert least_seconds(publish, below=5) < 5


def test_confirms_that_trickle_in_end_with_the_bound_of_the_call(rabbitmq: AmqpBench) -> None:
    """Each confirm is progress, so the limit on waiting for the next one never ended the call."""
    publisher = AmqpPublisher(
        rabbitmq.url, exchange=rabbitmq.exchange, confirm_seconds=30, publish_seconds=1
    )

    def measure() -> float:
        rabbitmq.proxy.pass_on()
        wait_until(lambda: publisher.publish([message(1)]).confirmed)
        rabbitmq.proxy.trickle()
        begun = time.monotonic()
        receipt = publisher.publish([message(2)])
        seconds = time.monotonic() - begun
        assert receipt.outage
        return seconds

    assert least(measure, below=3) < 3


def test_an_idle_connection_that_the_broker_ended_costs_no_failed_publish(
    rabbitmq: AmqpBench,
) -> None:
    rabbitmq.publisher.publish([message(1)])
    rabbitmq.proxy.refuse()
    rabbitmq.proxy.pass_on()
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:  # The reset takes a moment to arrive.
        rabbitmq.publisher.keep_alive()

    assert rabbitmq.publisher.publish([message(2)]).confirmed == ["id-2"]


class LimitedRabbitmq(RabbitmqServer):
    """A broker that closes the channel over a message of more than 150 000 bytes."""

    def _write_configuration(self, home: Path) -> None:
        super()._write_configuration(home)
        with (home / "rabbitmq.conf").open("a") as file:
            file.write("max_message_size = 150000\n")


@pytest.fixture(scope="module")
def limited() -> Iterator[LimitedRabbitmq]:
    with started(LimitedRabbitmq) as server:
        yield server


@pytest.mark.thorough
def test_a_memory_alarm_delays_a_publisher_for_a_limited_time(limited: LimitedRabbitmq) -> None:
    publisher = AmqpPublisher(limited.url, exchange="alarmed", confirm_seconds=1)
    publisher.publish([message(1)])
    limited.control("set_vm_memory_high_watermark", "0.00001")
    begun = time.monotonic()

    # Far more than fits into the buffers of both ends.
    during = publisher.publish([message(n, body=b" " * 100_000) for n in range(2, 202)])
    took = time.monotonic() - begun
    limited.control("set_vm_memory_high_watermark", "0.9")
    after = publisher.publish([message(300)])

    publisher.close()
    assert during.outage
    assert took < 5
    assert after.confirmed == ["id-300"]


def test_a_message_that_closes_the_channel_is_found_among_the_others(
    limited: LimitedRabbitmq,
) -> None:
    publisher = AmqpPublisher(limited.url, exchange="small", confirm_seconds=2)
    messages: Sequence[Message] = [message(1), message(2, body=b" " * 200_000), message(3)]

    receipt = publisher.publish(messages)

    publisher.close()
    assert receipt.refused == ["id-2"]
    assert {"id-1", "id-3"} <= set(receipt.confirmed)
    assert receipt.outage is None


def test_five_thousand_events_a_second_are_confirmed(rabbitmq: AmqpBench) -> None:
    """One at a time, 1 200 are published. The bound has a margin for slow machines."""
    messages = [message(n, body=b" " * 600) for n in range(5000)]
    rabbitmq.publisher.publish(messages[:1])

    def publish() -> None:
        assert len(rabbitmq.publisher.publish(messages).confirmed) == 5000

    assert least_seconds(publish, below=2) < 2
