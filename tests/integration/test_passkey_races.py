"""Passkeys under concurrency: one credential posted often, suspensions, and first factors."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from flask import Flask

from tests.support.authenticator import Authenticator
from tests.support.client import JsonClient
from tests.support.databases import PostgresDatabase
from tests.support.deployments import Deployment
from tests.support.gunicorn import GunicornService
from tests.support.passkeys import ADD, SIGN_IN, add_passkey, options, try_to_sign_in
from tests.support.polling import wait_until
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient

PARALLEL = 20
LOG_IN = "/api/v1/auth/login"
LOCK_WAITS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def waiting(deployment: Deployment) -> int:
    """Return how many sessions of the database wait for a lock."""
    with closing(psycopg2.connect(deployment.database.url)) as watching:
        cursor = watching.cursor()
        cursor.execute(LOCK_WAITS)
        return int(cursor.fetchall()[0][0])


def _at_least(deployment: Deployment, number: int) -> bool:
    return waiting(deployment) >= number


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls at the same moment and return what they return."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def after_each_other(
    deployment: Deployment, first: Callable[[], Any], second: Callable[[], Any]
) -> list[Any]:
    """Run two calls that wait for the row of the user, in this order, and let both continue."""
    with (
        closing(psycopg2.connect(deployment.database.url)) as holding,
        ThreadPoolExecutor(2) as pool,
    ):
        holding.cursor().execute("SELECT id FROM users WHERE username = 'robin' FOR UPDATE")
        calls = []
        for number, call in enumerate((first, second), start=1):
            calls.append(pool.submit(call))
            wait_until(partial(_at_least, deployment, number))
        holding.rollback()
        return [call.result(60) for call in calls]


@pytest.mark.parametrize("passkey_first", [True, False])
def test_no_session_survives_a_suspension_during_a_sign_in(
    deployment: Deployment,
    client: JsonClient,
    make_user: MakeUser,
    log_in: LogIn,
    passkey_first: bool,
) -> None:
    robin, authenticator = make_user("robin"), Authenticator()
    chief = log_in(make_user("chief", roles=["superadmin"]))
    add_passkey(log_in(robin), authenticator)
    credential = authenticator.get(options(client, SIGN_IN))

    def sign_in() -> Any:
        return client.post(SIGN_IN, json={"credential": credential})

    def suspend() -> Any:
        return chief.post(f"/api/v1/users/{robin.id}/suspend")

    calls = (sign_in, suspend) if passkey_first else (suspend, sign_in)
    answers = after_each_other(deployment, *calls)

    statuses = [answer.status_code for answer in answers]
    assert statuses == ([200, 200] if passkey_first else [200, 403])
    sessions = chief.get(f"/api/v1/users/{robin.id}/sessions").get_json()["items"]
    assert sessions == []


@pytest.mark.parametrize("passkey_first", [True, False])
def test_no_session_of_the_password_alone_survives_the_first_factor(
    deployment: Deployment,
    app: Flask,
    client: JsonClient,
    make_user: MakeUser,
    log_in: LogIn,
    passkey_first: bool,
) -> None:
    robin = make_user("robin")
    own = log_in(robin)
    credential = Authenticator().create(options(own, ADD))

    def enroll() -> Any:
        return own.post(ADD, json={"credential": credential})

    def sign_in() -> Any:
        return client.post(LOG_IN, json={"username": "robin", "password": PASSWORD})

    calls = (enroll, sign_in) if passkey_first else (sign_in, enroll)
    answers = after_each_other(deployment, *calls)

    added = answers[0 if passkey_first else 1]
    other = answers[1 if passkey_first else 0]
    assert added.status_code == 201
    if passkey_first:
        assert (other.status_code, other.get_json()["code"]) == (403, "mfa_required")
    else:
        assert other.status_code == 200
    listed = SignedInClient(app, added.get_json()).get("/api/v1/auth/sessions").get_json()["items"]
    assert [(entry["acr"], entry["current"]) for entry in listed] == [("aal2", True)]


def test_of_two_first_factors_at_once_one_brings_codes(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """Each session may add its passkey; the one that is second has ended by then."""
    robin = make_user("robin")
    sessions = [log_in(robin), log_in(robin)]
    credentials = [Authenticator().create(options(session, ADD)) for session in sessions]

    answers = at_once(
        *(
            partial(session.post, ADD, json={"credential": credential})
            for session, credential in zip(sessions, credentials, strict=True)
        )
    )

    assert sorted(answer.status_code for answer in answers) == [201, 401]
    (added,) = (answer for answer in answers if answer.status_code == 201)
    assert len(added.get_json()["recovery_codes"]) == 10


def test_one_of_many_uses_of_a_challenge_signs_in(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    authenticator = Authenticator()
    add_passkey(log_in(make_user("robin")), authenticator)
    credential = authenticator.get(options(client, SIGN_IN))

    answers = at_once(
        *[lambda: client.post(SIGN_IN, json={"credential": credential}) for _ in range(8)]
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    assert try_to_sign_in(client, authenticator).status_code == 200


# Two workers


@pytest.fixture
def service(
    make_database: Callable[[str], PostgresDatabase], redis_url: str
) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("passkeys").url,
        "REDIS_URL": redis_url,
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "2",
        "PUBLIC_BASE_URL": "http://localhost:8000",
    }
    with GunicornService(environment) as service:
        yield service


def post(service: GunicornService, path: str, body: object, token: str = "") -> tuple[int, Any]:
    """Send a request over a connection of its own, so that any worker may answer."""
    bearer = (f"Authorization: Bearer {token}",) if token else ()
    headers = ("Content-Type: application/json", *bearer)
    request = request_bytes("POST", path, headers=headers, body=json.dumps(body).encode())
    with RawConnection("127.0.0.1", service.port, timeout_seconds=60) as connection:
        answer = connection.exchange(request)
    return answer.status, json.loads(answer.body)


@pytest.mark.thorough
def test_of_20_posts_of_one_credential_on_two_workers_one_signs_in(
    service: GunicornService,
) -> None:
    who = {"username": "robin", "password": PASSWORD}
    post(service, "/api/v1/auth/register", {**who, "email": "robin@example.com"})
    token = post(service, LOG_IN, who)[1]["access_token"]
    authenticator = Authenticator()
    creation = post(service, f"{ADD}/options", {}, token)[1]["public_key"]
    status, _ = post(service, ADD, {"credential": authenticator.create(creation)}, token)
    assert (status, len(service.worker_pids)) == (201, 2)

    for _ in range(3):
        request = post(service, f"{SIGN_IN}/options", {})[1]["public_key"]
        body = {"credential": authenticator.get(request)}
        answers = at_once(*[partial(post, service, SIGN_IN, body)] * PARALLEL)

        assert sorted(status for status, _ in answers) == [200] + [401] * (PARALLEL - 1)
        assert {answer["code"] for status, answer in answers if status == 401} == {
            "passkey_invalid"
        }
