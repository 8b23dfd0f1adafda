"""Step-ups that meet other changes of their session, in this process and in two workers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import RecordingClient, log_in
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.actor import Actor
from userapi.authentication.refusals import TokenRevoked
from userapi.clock import ManualClock
from userapi.wiring.services import Services
from userapi_client import Client, SessionEnded, Tokens

MakeApp = Callable[..., Flask]
NEW_PASSWORD = "granite-otter-57-teapot"
MANY = 20
REVOKED = (401, "token_revoked")


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls concurrently and return their results."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def outcome(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json().get("code", "")


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def session(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


def step_up(client: JsonClient) -> Any:
    return client.post("/api/v1/auth/step-up", json={"password": PASSWORD})


def refresh(client: SignedInClient) -> Any:
    return client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})


def change_password(client: JsonClient) -> Any:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return client.post("/api/v1/auth/change-password", json=body)


def is_signed_in(app: Flask, pair: Any) -> bool:
    client = JsonClient(app, token=pair.get_json()["access_token"])
    return client.get("/api/v1/auth/me").status_code == 200


@pytest.mark.both_databases
def test_a_step_up_during_refreshes_leaves_one_pair(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    """Whichever comes first, only the pair of the step-up is valid, and the session lives."""
    for _ in range(5):
        session = log_in(robin)

        stepped, *refreshed = at_once(lambda: step_up(session), *[lambda: refresh(session)] * 4)

        assert stepped.status_code == 200
        assert {outcome(answer) for answer in refreshed} <= {(200, ""), REVOKED}
        assert is_signed_in(app, stepped)
        assert not any(is_signed_in(app, r) for r in refreshed if r.status_code == 200)
        assert outcome(refresh(session)) == REVOKED


@pytest.mark.both_databases
def test_of_step_ups_and_password_changes_one_gets_a_pair(
    app: Flask, session: SignedInClient
) -> None:
    answers = at_once(*[lambda: step_up(session)] * 2, *[lambda: change_password(session)] * 2)

    pairs = [answer for answer in answers if answer.status_code == 200]
    others = {outcome(answer) for answer in answers if answer.status_code != 200}
    assert len(pairs) == 1
    # A new password that was stored before the check of the former one makes that one wrong.
    assert others <= {REVOKED, (401, "invalid_credentials")}
    assert is_signed_in(app, pairs[0])


@pytest.mark.both_databases
def test_a_step_up_during_a_log_out_does_not_restore_the_session(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    for _ in range(5):
        session, other = log_in(robin), log_in(robin)

        stepped, _ = at_once(
            lambda: step_up(session), lambda: other.delete("/api/v1/auth/sessions")
        )

        assert stepped.status_code in (200, 401)
        assert stepped.status_code == 401 or not is_signed_in(app, stepped)


@pytest.mark.both_databases
def test_a_session_that_expires_while_the_password_is_checked_is_not_renewed(
    app: Flask, clock: ManualClock, services: Services, robin: MadeUser, session: SignedInClient
) -> None:
    user_id, session_id = UUID(robin.id), UUID(session.session_id)
    with app.app_context():
        own = services.live_sessions.find(session_id, user_id=user_id, session_version=1)
        assert own is not None
        clock.advance(days=7, seconds=1)

        with pytest.raises(TokenRevoked):
            services.step_up.with_password(own, PASSWORD, actor=Actor())


def test_the_former_token_is_revoked_in_another_process(
    make_app: MakeApp, app: Flask, session: SignedInClient
) -> None:
    """The copy of the session in Redis would live for five minutes."""
    here = make_app(SESSION_CACHE_SECONDS="300")
    there = make_app(SESSION_CACHE_SECONDS="300")
    client = JsonClient(there, token=session.access_token)
    assert client.get("/api/v1/auth/me").status_code == 200

    renewed = step_up(JsonClient(here, token=session.access_token))

    assert renewed.status_code == 200
    assert outcome(client.get("/api/v1/auth/me")) == REVOKED
    assert is_signed_in(there, renewed)


@pytest.fixture
def service(
    make_database: Callable[[str], PostgresDatabase], redis_url: str
) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "LOCKOUT_THRESHOLD": "100",
        "DATABASE_URL": make_database("step_up").url,
        "REDIS_URL": redis_url,
        "WEB_CONCURRENCY": "2",
    }
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.mark.thorough
def test_of_twenty_step_ups_on_two_workers_one_gets_a_pair(service: GunicornService) -> None:
    pair = log_in(service.base_url, "admin", PASSWORD)
    client = RecordingClient(service.base_url, token=pair.access_token)

    answers = at_once(
        *[lambda: client.once("POST", "/auth/step-up", {"password": PASSWORD})] * MANY
    )

    pairs = [answer.body for answer in answers if answer.status == 200]
    refused = {(answer.status, answer.body["code"]) for answer in answers if answer.status != 200}
    assert len(pairs) == 1
    assert refused == {REVOKED}
    renewed = Tokens(pairs[0]["access_token"], pairs[0]["refresh_token"])
    with Client(service.base_url, renewed) as session:
        session.auth.refresh()
    with Client(service.base_url, pair) as session, pytest.raises(SessionEnded) as ended:
        session.auth.refresh()
    assert (ended.value.status, ended.value.code) == REVOKED
