"""How fast events go from the outbox to RabbitMQ, and how soon one is delivered."""

import json
import statistics
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from tempfile import TemporaryDirectory
from typing import Any

import amqp
import psycopg2
from kombu.connection import Connection as Broker

from tests.support.worker_process import WorkerProcess

EXCHANGE = "user_events_bench"
QUEUE = "bench"
DONE_WITHIN_SECONDS = 120.0
SUBJECTS = 1000


def relayed_per_second(environment: Mapping[str, str], events: int) -> float:
    """Return how many events a second the worker publishes and the broker confirms.

    From the first to the last moment that the outbox notes a confirmed event; the events are of a
    thousand users and go to a durable queue.
    """
    _empty_outbox(environment)
    with psycopg2.connect(environment["DATABASE_URL"]) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_events (id, type, subject, data, occurred_at, attempts)"
                " SELECT gen_random_uuid(), 'user.updated', 'user-' || n %% %s,"
                " jsonb_build_object('id', 'user-' || n %% %s, 'changed', ARRAY['first_name'])"
                "::json, now(), 0 FROM generate_series(1, %s) AS n",
                (SUBJECTS, SUBJECTS, events),
            )
    connection.close()
    with _queue(environment) as channel, _worker(environment):
        _wait_for_zero(environment, "SELECT count(*) FROM outbox_events WHERE sent_at IS NULL")
        delivered = channel.queue_declare(QUEUE, passive=True).message_count
    if delivered < events:
        raise AssertionError(f"{events} events, but {delivered} messages")
    (seconds,) = _row(
        environment,
        "SELECT extract(epoch FROM max(sent_at) - min(sent_at)) FROM outbox_events",
    )
    return events / max(float(seconds), 0.001)


def delivery_milliseconds(
    environment: Mapping[str, str], url: str, headers: Mapping[str, str], *, events: int = 100
) -> dict[str, float]:
    """Return how long it takes from the answer to a change until its event is delivered.

    The service has committed before it answers, so this is the time from commit less the time
    that the answer itself took. One change at a time, ten a second: the worker is idle.
    """
    arrived: list[float] = []

    waits = []
    _empty_outbox(environment)
    with _queue(environment) as channel, _worker(environment):
        # What earlier rounds have left to the worker is none of this.
        _wait_for_zero(environment, "SELECT count(*) FROM audit_unsealed")
        channel.basic_consume(
            QUEUE, no_ack=True, callback=lambda _: arrived.append(time.perf_counter())
        )
        for number in range(events):
            request = urllib.request.Request(
                url,
                data=json.dumps({"first_name": f"Number {number}"}).encode(),
                headers={**headers, "Content-Type": "application/json"},
                method="PATCH",
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
            answered = time.perf_counter()
            while len(arrived) <= number:
                channel.connection.drain_events(timeout=10)
            waits.append((arrived[-1] - answered) * 1000)
            time.sleep(0.1)
    return {"p50": statistics.median(waits), "p95": statistics.quantiles(waits, n=20)[-1]}


@contextmanager
def _queue(environment: Mapping[str, str]) -> Iterator[amqp.Channel]:
    """Yield a channel with a durable queue that takes every event."""
    broker: Any = Broker  # It has no annotations.
    with broker(environment["RABBITMQ_URL"]) as connection:
        channel = connection.default_channel
        channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        channel.queue_purge(QUEUE)
        channel.queue_bind(QUEUE, EXCHANGE, "#")
        yield channel
        channel.queue_delete(QUEUE)


@contextmanager
def _worker(environment: Mapping[str, str]) -> Iterator[None]:
    with TemporaryDirectory() as folder:
        # Its log is read to know that it has started.
        variables = {**environment, "RABBITMQ_EXCHANGE": EXCHANGE, "LOG_FILE": ""}
        worker = WorkerProcess(variables, Path(folder) / "worker.log")
        try:
            worker.wait_until_started()
            yield
        finally:
            worker.end(SIGTERM)


def _empty_outbox(environment: Mapping[str, str]) -> None:
    with psycopg2.connect(environment["DATABASE_URL"]) as connection:
        connection.cursor().execute("TRUNCATE outbox_events")
    connection.close()


def _wait_for_zero(environment: Mapping[str, str], statement: str) -> None:
    deadline = time.monotonic() + DONE_WITHIN_SECONDS
    while _row(environment, statement)[0]:
        if time.monotonic() > deadline:
            raise TimeoutError(statement)
        time.sleep(0.2)


def _row(environment: Mapping[str, str], statement: str) -> tuple[float, ...]:
    connection = psycopg2.connect(environment["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        (row,) = cursor.fetchall()
    connection.close()
    return tuple(row)
