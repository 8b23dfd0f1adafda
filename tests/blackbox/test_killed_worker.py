"""A killed process of the service: each change happens completely or not at all."""

import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psycopg2
import pytest

from tests.support.databases import PostgresDatabase
from tests.support.guardian import send
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import PASSWORD, Answer, RecordingClient, until_answered
from userapi_client import Unavailable

USERS = 60
TOGETHER = 6
KILL_EVERY = 4


@pytest.fixture
def database(make_database: Callable[[str], PostgresDatabase]) -> PostgresDatabase:
    return make_database("killed")


@pytest.fixture
def service(database: PostgresDatabase) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "DATABASE_URL": database.url,
        "WEB_CONCURRENCY": "2",
    }
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        yield service


def rows(database: PostgresDatabase, query: str) -> list[str]:
    connection = psycopg2.connect(database.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return sorted(str(row[0]) for row in cursor.fetchall())
    finally:
        connection.close()


def test_work_of_a_killed_process_is_whole_or_absent_and_a_retry_gets_its_answer(
    service: GunicornService, database: PostgresDatabase
) -> None:
    client = RecordingClient(service.base_url)
    client.log_in("admin")
    first_answers: dict[int, Answer] = {}

    def create(number: int) -> Answer:
        new = {
            "username": f"user{number}",
            "email": f"user{number}@example.com",
            "password": PASSWORD,
        }
        return client.once("POST", "/api/v1/users/", new, key=f"key-{number}")

    def try_once(number: int) -> None:
        with suppress(Unavailable):
            first_answers[number] = create(number)
        # The requests of the other threads are under way.
        if number % KILL_EVERY == 0 and len(pids := service.worker_pids) == 2:
            send([random.choice(pids)], signal.SIGKILL)

    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(try_once, range(USERS)))
    # Finishes what a client has not waited for.
    assert service.stop() == 0
    users = rows(database, "SELECT id FROM users")
    audited = rows(database, "SELECT target_id FROM audit_logs WHERE action = 'user.created'")
    told = rows(database, "SELECT subject FROM outbox_events WHERE type = 'user.created'")
    kept = rows(database, "SELECT scope_hash FROM idempotency_keys")
    service.start()
    second_answers = {number: until_answered(partial(create, number)) for number in range(USERS)}

    assert users == audited == told
    assert len(kept) == len(users) - 1  # The administrator was made without a key.
    assert len(first_answers) < USERS, "nothing was killed in the middle"
    for number, first in first_answers.items():
        assert (first.status, second_answers[number].body) == (201, first.body)
        assert second_answers[number].replayed
    for answer in second_answers.values():
        # Who got no answer, but whose user exists, gets the answer that was lost.
        assert answer.status == 201
        assert answer.replayed == (answer.body["id"] in users)
    assert len(rows(database, "SELECT id FROM users")) == USERS + 1
