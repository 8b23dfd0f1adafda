"""Several nodes of RabbitMQ, represented by proxies to one server."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from userapi.diagnosis import rabbitmq
from userapi.diagnosis.checks import MAX_SECONDS, Status, run_checks
from userapi.events.publisher import Message
from userapi.events.rabbitmq import AmqpPublisher


class Nodes:
    """Proxies to one server, and a publisher that knows all of them."""

    def __init__(self, url: str, exchange: str, stack: ExitStack) -> None:
        parts = urlsplit(url)
        account, _, _ = parts.netloc.rpartition("@")
        port = parts.port or 5672
        self.proxies = [
            stack.enter_context(FaultProxy(parts.hostname or "", port)) for _ in range(3)
        ]
        hosts = ",".join(f"{proxy.host}:{proxy.port}" for proxy in self.proxies)
        self.url = f"amqp://{account}@{hosts}{parts.path}"
        self.alternatives = ";".join(
            f"amqp://{account}@{proxy.host}:{proxy.port}{parts.path}" for proxy in self.proxies
        )
        self.exchange = exchange
        self.publisher = self.publisher_for(self.url)
        stack.callback(self.publisher.close)

    def publisher_for(self, url: str) -> AmqpPublisher:
        return AmqpPublisher(url, exchange=self.exchange, confirm_seconds=1)

    def connected(self) -> list[bool]:
        return [proxy.open_connections > 0 for proxy in self.proxies]


@pytest.fixture
def nodes(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(rabbitmq_url, rabbitmq_exchange, stack)


def messages(*numbers: int) -> list[Message]:
    return [Message(id=f"id-{n}", routing_key="user.updated", body=b"{}") for n in numbers]


@pytest.mark.parametrize("form", ["url", "alternatives"])
def test_the_next_node_is_used_while_the_first_is_away(nodes: Nodes, form: str) -> None:
    """The second node of the URL was accepted and never connected to."""
    nodes.proxies[0].refuse()
    publisher = nodes.publisher_for(getattr(nodes, form))

    receipt = publisher.publish(messages(1, 2))
    connected = nodes.connected()
    publisher.close()

    assert (receipt.confirmed, receipt.outage) == (["id-1", "id-2"], None)
    assert connected == [False, True, False]


@pytest.mark.thorough
def test_a_node_that_is_slow_at_every_step_is_given_up(nodes: Nodes) -> None:
    """Its connection and its channel had four seconds each."""
    nodes.proxies[0].delay(0.9)

    receipt = nodes.publisher.publish(messages(1))

    assert (receipt.confirmed, receipt.outage) == (["id-1"], None)
    wait_until(lambda: nodes.connected() == [False, True, False])


def test_a_node_that_ends_costs_no_failed_publish(nodes: Nodes) -> None:
    nodes.publisher.publish(messages(1))
    nodes.proxies[0].refuse()

    receipt = nodes.publisher.publish(messages(2, 3))

    assert (receipt.confirmed, receipt.outage) == (["id-2", "id-3"], None)


def test_the_last_good_node_is_tried_first(nodes: Nodes) -> None:
    nodes.proxies[0].refuse()
    nodes.publisher.publish(messages(1))
    nodes.proxies[0].pass_on()
    nodes.publisher.close()

    nodes.publisher.publish(messages(2))

    assert nodes.connected() == [False, True, False]


@pytest.mark.thorough
def test_a_node_that_stops_answering_is_not_tried_first_again(nodes: Nodes) -> None:
    nodes.publisher.publish(messages(1))
    nodes.proxies[0].black_hole()

    first = nodes.publisher.publish(messages(2))
    second = nodes.publisher.publish(messages(2))

    assert first.outage == "TimeoutError"
    assert (second.confirmed, second.outage) == (["id-2"], None)


def test_an_outage_is_reported_once_all_nodes_have_failed(nodes: Nodes) -> None:
    for proxy in nodes.proxies:
        proxy.refuse()

    receipt = nodes.publisher.publish(messages(1))

    assert (receipt.confirmed, receipt.outage) == ([], "ConnectionRefusedError")
    assert nodes.publisher.obstacle() == "ConnectionRefusedError"


@pytest.mark.thorough
def test_rabbitmq_is_up_if_one_node_answers(nodes: Nodes) -> None:
    nodes.proxies[0].black_hole()
    nodes.proxies[1].refuse()
    began = time.monotonic()

    check = run_checks({"rabbitmq": lambda: rabbitmq.check(nodes.url)})["rabbitmq"]

    assert check.status is Status.UP
    assert time.monotonic() - began < MAX_SECONDS
    nodes.proxies[2].refuse()
    check = run_checks({"rabbitmq": lambda: rabbitmq.check(nodes.url)})["rabbitmq"]
    assert check.status is Status.DOWN


def test_doctor_names_the_nodes_that_do_not_answer(nodes: Nodes) -> None:
    away = free_port()
    url = nodes.url.replace(f":{nodes.proxies[1].port}", f":{away}")

    found = list(rabbitmq.findings(nodes.publisher, url, exchange=nodes.exchange, kept_days=30))

    assert [finding.text for finding in found] == [
        f"accepts events on {nodes.exchange}",
        f"1 of 3 nodes do not answer: 127.0.0.1:{away}",
    ]
