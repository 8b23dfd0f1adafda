"""examples/consume_events.py, on RabbitMQ, beside the service and its worker."""

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from tests.examples.conftest import FAST, PASSWORD, StartProgram
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.polling import wait_until

People = dict[str, tuple[str, str]]


@pytest.fixture
def service(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[GunicornService]:
    environment = {
        **FAST,
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": rabbitmq_exchange,
        "WORKER_EMBEDDED": "true",
    }
    with GunicornService(environment) as service:
        yield service


@pytest.fixture
def queue(rabbitmq_url: str, rabbitmq_exchange: str) -> Iterator[str]:
    name = f"people_{rabbitmq_exchange}"
    library: Any = kombu  # It has no annotations.
    yield name
    with library.Connection(rabbitmq_url) as connection:
        for leftover in (name, f"{name}.dead"):
            library.Queue(leftover, channel=connection.channel()).delete()
        library.Exchange(f"{name}.dead", channel=connection.channel()).delete()


def people_in(database: Path) -> People:
    try:
        with sqlite3.connect(database) as connection:
            rows = connection.execute("SELECT username, email, status FROM people").fetchall()
    except sqlite3.OperationalError:
        return {}  # The program has not made its tables yet.
    finally:
        connection.close()
    return {username: (email, status) for username, email, status in rows}


def test_the_list_follows_the_events_over_a_kill_and_counts_each_once(
    service: GunicornService,
    queue: str,
    start_program: StartProgram,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
    tmp_path: Path,
) -> None:
    database = tmp_path / "people.sqlite3"
    environment = {
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": rabbitmq_exchange,
        "QUEUE": queue,
        "DATABASE": str(database),
    }
    library: Any = kombu
    program = start_program("consume_events.py", **environment)
    with library.Connection(rabbitmq_url) as connection:
        dead = library.Queue(f"{queue}.dead", channel=connection.channel())
        wait_until(lambda: _is_there(connection, queue))
        add_administrator(service, PASSWORD)
        active = ("admin@example.com", "active")
        wait_until(lambda: people_in(database) == {"admin": active})

        # Killed, it misses nothing, and what comes again changes nothing.
        program.kill()
        program.wait(10)
        replayed = service.command("events", "replay", "--since", "2020-01-01T00:00:00")
        assert replayed.exit_code == 0, replayed.output
        exchange = library.Exchange(rabbitmq_exchange, type="topic", durable=True)
        library.Producer(connection.channel(), exchange).publish(b"{", routing_key="user.updated")
        program = start_program("consume_events.py", **environment)

        wait_until(lambda: dead.get(accept=None) is not None)
        wait_until(lambda: _waiting(connection, queue) == 0)
        assert people_in(database) == {"admin": active}
    program.send_signal(signal.SIGTERM)
    assert program.wait(10) == 0


def _is_there(connection: Any, queue: str) -> bool:
    try:
        return _waiting(connection, queue) >= 0
    except connection.channel_errors:
        return False


def _waiting(connection: Any, queue: str) -> int:
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)
