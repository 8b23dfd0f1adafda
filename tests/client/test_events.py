"""Events from RabbitMQ: revocations within a second, and the example that consumes them."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kombu
import pytest

from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy, proxy_to, url_through
from userapi_client import Client, Events, TokenRefused, Unavailable, Verifier
from userapi_client.events import Event, EventConsumer, Reject

from .conftest import EXAMPLES, FAST, PASSWORD, People, StartProgram

ISSUER, AUDIENCE = "aima-user-service", "aima"
EXAMPLE_EXCHANGE, EXAMPLE_QUEUE = "user_events", "people"
library: Any = kombu  # It has no annotations.


@pytest.fixture(scope="module")
def service(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[GunicornService]:
    environment = {
        **FAST,
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": rabbitmq_exchange,
        "WORKER_EMBEDDED": "true",
    }
    service = GunicornService(environment)
    migrated = service.flask("db", "upgrade")
    assert migrated.returncode == 0, migrated.stderr
    with service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture
def events(rabbitmq_url: str, rabbitmq_exchange: str) -> Events:
    """Return where revocations of the service arrive."""
    return Events(rabbitmq_url, exchange=rabbitmq_exchange)


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[FaultProxy]:
    with proxy_to(rabbitmq_url) as proxy:
        yield proxy


def status(verifier: Verifier, token: str) -> str:
    try:
        return verifier.verify(token).checked
    except TokenRefused as exc:
        return exc.code
    except Unavailable:
        return "unavailable"


@pytest.mark.thorough
def test_a_revocation_is_noticed_by_its_event(
    service: GunicornService, people: People, events: Events
) -> None:
    with Verifier(
        service.base_url, issuer=ISSUER, audience=AUDIENCE, revocation=events
    ) as verifier:
        verifier.warm()
        suspended, first = people.holding("media:read")
        _, second = people.holding("media:read")
        # From before the subscription, or of its first seconds: asked for, and then known.
        assert status(verifier, first.access_token) == "service"
        wait_until(lambda: status(verifier, first.access_token) == "events")

        people.admin.users.suspend(suspended)
        wait_until(lambda: status(verifier, first.access_token) == "token_revoked")

        with Client(service.base_url, second) as client:
            client.auth.logout()
        wait_until(lambda: status(verifier, second.access_token) == "token_revoked")


def test_a_new_password_does_not_refuse_its_own_new_pair(
    service: GunicornService, people: People, events: Events
) -> None:
    """The pair is issued in the second of the event, and `iat` has whole seconds."""
    with Verifier(
        service.base_url, issuer=ISSUER, audience=AUDIENCE, revocation=events
    ) as verifier:
        verifier.warm()
        _, tokens = people.holding("media:read")
        with Client(service.base_url, tokens) as client:
            pair = client.auth.change_password(PASSWORD, "amber-meadow-57-telescope")

        assert status(verifier, pair.access_token) in ("service", "events")
        wait_until(
            lambda: (
                (
                    status(verifier, tokens.access_token),
                    status(verifier, pair.access_token),
                )
                == ("token_revoked", "events")
            )
        )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("on_gap", "expected"), [("ask", "service"), ("refuse", "unavailable"), ("accept", "events")]
)
def test_a_gap_in_the_connection_is_treated_as_configured(
    service: GunicornService,
    people: People,
    events: Events,
    broker: FaultProxy,
    on_gap: Any,
    expected: str,
) -> None:
    url = url_through(broker, events.amqp_url)
    revocation = replace(events, amqp_url=url, on_gap=on_gap)
    with Verifier(
        service.base_url, issuer=ISSUER, audience=AUDIENCE, revocation=revocation
    ) as verifier:
        user, tokens = people.holding("media:read")
        wait_until(lambda: status(verifier, tokens.access_token) == "events")
        broker.refuse()
        wait_until(lambda: status(verifier, tokens.access_token) == expected)

        people.admin.users.suspend(user)
        # The event is published while no consumer listens.
        wait_until(lambda: waiting_in_outbox(people.admin) == 0)
        broker.pass_on()

        wait_until(lambda: status(verifier, tokens.access_token) == "token_revoked")


def waiting_in_outbox(admin: Client) -> int:
    health = admin.request("GET", "/health/detailed").json()
    return int(health["components"]["outbox"]["pending"])


@pytest.fixture
def queue(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[str]:
    """Return a queue that no other worker uses; it is deleted afterwards."""
    name = f"people_{rabbitmq_exchange}"
    yield name
    delete_queue(rabbitmq_url, name)


@pytest.fixture
def example_queue(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[str]:
    """Return the queue of the example, whose exchange passes on the events of the service."""
    with library.Connection(rabbitmq_url) as connection:
        exchanges = [
            library.Exchange(name, type="topic", durable=True, channel=connection.channel())
            for name in (EXAMPLE_EXCHANGE, rabbitmq_exchange)
        ]
        for exchange in exchanges:
            exchange.declare()
        exchanges[0].bind_to(exchanges[1], routing_key="#")
    yield EXAMPLE_QUEUE
    delete_queue(rabbitmq_url, EXAMPLE_QUEUE)
    with library.Connection(rabbitmq_url) as connection:
        library.Exchange(EXAMPLE_EXCHANGE, channel=connection.channel()).delete()


def delete_queue(rabbitmq_url: str, name: str) -> None:
    with library.Connection(rabbitmq_url) as connection:
        for leftover in (name, f"{name}.dead"):
            library.Queue(leftover, channel=connection.channel()).delete()
        library.Exchange(f"{name}.dead", channel=connection.channel()).delete()


def seen_in(database: Path) -> dict[str, int]:
    if not database.exists():
        return {}
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT subject, sequence FROM seen").fetchall()
    connection.close()
    return dict(rows)


@pytest.mark.thorough
def test_the_example_counts_each_event_once_over_a_kill(
    service: GunicornService,
    people: People,
    example_queue: str,
    start_program: StartProgram,
    rabbitmq_url: str,
    tmp_path: Path,
) -> None:
    database = tmp_path / "people.sqlite3"
    command = (str(EXAMPLES / "consumer.py"),)
    environment = {"RABBITMQ_URL": rabbitmq_url, "PYTHONUNBUFFERED": "1"}
    program = start_program(*command, folder=tmp_path, **environment)
    with library.Connection(rabbitmq_url) as connection:
        dead = library.Queue(f"{example_queue}.dead", channel=connection.channel())
        wait_until(lambda: is_there(connection, example_queue))
        user, _ = people.holding("media:read")
        wait_until(lambda: user in seen_in(database))

        program.kill()
        program.wait(10)
        counted = seen_in(database)
        replayed = service.flask("events", "replay", "--since", "2020-01-01T00:00:00")
        assert replayed.returncode == 0, replayed.stderr
        exchange = library.Exchange(EXAMPLE_EXCHANGE, type="topic", durable=True)
        library.Producer(connection.channel(), exchange).publish(b"{", routing_key="user.updated")
        start_program(*command, folder=tmp_path, **environment)

        wait_until(lambda: dead.get(accept=None) is not None)
        wait_until(lambda: waiting(connection, example_queue) == 0)
        assert {subject: seen_in(database)[subject] for subject in counted} == counted
    # Once for each change: what was replayed has printed nothing.
    printed = (tmp_path / "programs.log").read_text("utf-8")
    assert printed.count(f"user.created {user} active") == 1


def unpublished(service: GunicornService) -> Any:
    """Return the events that the service has not published yet."""
    listed = service.command("events", "list", "--state", "waiting", "--json")
    return json.loads(listed.output)["items"]


def test_an_event_whose_handler_fails_stays_in_the_queue(
    service: GunicornService, people: People, rabbitmq_url: str, rabbitmq_exchange: str, queue: str
) -> None:
    handled: list[str] = []
    consumer = EventConsumer(
        rabbitmq_url, queue, bindings=["role.created"], exchange=rabbitmq_exchange
    )
    failures: list[Exception] = [TimeoutError("database"), ValueError("bug"), Reject("never")]

    def handle(event: Event) -> None:
        handled.append(event.id)
        if failures:
            raise failures.pop(0)
        consumer.stop()

    # Declares the queue; the stopped consumer receives nothing.
    declaring = EventConsumer(
        rabbitmq_url, queue, bindings=["role.created"], exchange=rabbitmq_exchange
    )
    with library.Connection(rabbitmq_url) as connection:
        # Events of earlier tests would be in the queue as well.
        wait_until(lambda: unpublished(service) == [])
        declaring._declare(connection.channel())
        people.holding("media:read")
        people.holding("media:read")

        with pytest.raises(TimeoutError):
            consumer.run(handle)
        with pytest.raises(ValueError):
            consumer.run(handle)
        consumer.run(handle)

        first, again, rejected, second = handled
        assert first == again == rejected != second
        wait_until(lambda: waiting(connection, f"{queue}.dead") == 1)
        assert waiting(connection, queue) == 0


@pytest.mark.thorough
def test_a_consumer_continues_after_an_outage_of_the_broker(
    people: People,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
    queue: str,
    broker: FaultProxy,
) -> None:
    handled: list[str] = []
    consumer = EventConsumer(
        url_through(broker, rabbitmq_url),
        queue,
        bindings=["user.created"],
        exchange=rabbitmq_exchange,
    )
    thread = threading.Thread(target=consumer.run, args=(lambda e: handled.append(e.subject),))
    thread.start()
    with library.Connection(rabbitmq_url) as connection:
        wait_until(lambda: is_there(connection, queue))
    broker.refuse()
    user, _ = people.holding("media:read")
    broker.pass_on()

    wait_until(lambda: user in handled)
    consumer.stop()
    thread.join(30)
    assert not thread.is_alive()


def is_there(connection: Any, queue: str) -> bool:
    try:
        return waiting(connection, queue) >= 0
    except connection.channel_errors:
        return False


def waiting(connection: Any, queue: str) -> int:
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)
