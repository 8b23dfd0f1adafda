"""Refreshes: concurrent ones, lost responses, and restarts of all servers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

pytestmark = pytest.mark.thorough

MakeApp = Callable[..., Flask]
ROOM = {"DATABASE_POOL_SIZE": "50"}
MANY = 50


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Return an application whose pool has a connection for every thread."""
    return make_app(**ROOM)


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def session(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls concurrently and return their results."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def refresh(app: Flask, token: str) -> Any:
    return JsonClient(app).post("/api/v1/auth/refresh", json={"refresh_token": token})


def me(app: Flask, pair: dict[str, str]) -> int:
    return int(JsonClient(app, token=pair["access_token"]).get("/api/v1/auth/me").status_code)


def rotations(app: Flask) -> int:
    return len(audit_rows(app, action="auth.refresh"))


# Concurrent refreshes


def test_fifty_concurrent_refreshes_rotate_once_and_end_no_session(
    app: Flask, session: SignedInClient
) -> None:
    answers = at_once(*[lambda: refresh(app, session.refresh_token)] * MANY)

    assert {answer.status_code for answer in answers} == {200}
    pairs = [answer.get_json() for answer in answers]
    assert len({pair["refresh_token"] for pair in pairs}) == 1
    assert pairs[0]["refresh_token"] != session.refresh_token
    assert {me(app, pair) for pair in pairs} == {200}
    assert rotations(app) == 1
    assert events(app, type_="session.reuse_detected") == []
    assert refresh(app, pairs[0]["refresh_token"]).status_code == 200


def test_concurrent_refreshes_in_two_processes_rotate_once(
    app: Flask, make_app: MakeApp, session: SignedInClient
) -> None:
    other = make_app(**ROOM)

    answers = at_once(
        *[lambda: refresh(app, session.refresh_token)] * 15,
        *[lambda: refresh(other, session.refresh_token)] * 15,
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.get_json()["refresh_token"] for answer in answers}) == 1
    assert rotations(app) == 1


def test_concurrent_refreshes_rotate_once_while_redis_is_emptied(
    app: Flask, session: SignedInClient, server: redis.Redis
) -> None:
    session.get("/api/v1/auth/me")

    answers = at_once(*[lambda: refresh(app, session.refresh_token)] * 20, *[server.flushdb] * 5)[
        :20
    ]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.get_json()["refresh_token"] for answer in answers}) == 1
    assert rotations(app) == 1
    assert me(app, answers[0].get_json()) == 200


def test_without_a_grace_period_concurrent_refreshes_end_the_session(
    make_app: MakeApp, session: SignedInClient
) -> None:
    strict = make_app(REFRESH_REUSE_GRACE_SECONDS="0", **ROOM)

    answers = at_once(*[lambda: refresh(strict, session.refresh_token)] * 10)

    codes = sorted(answer.get_json().get("code", "") for answer in answers)
    assert codes == ["", "refresh_token_reused", *["token_revoked"] * 8]
    (pair,) = [answer.get_json() for answer in answers if answer.status_code == 200]
    assert me(strict, pair) == 401
    assert refresh(strict, pair["refresh_token"]).get_json()["code"] == "token_revoked"


def test_concurrent_reuses_end_the_session_once(
    app: Flask, session: SignedInClient, clock: ManualClock
) -> None:
    pair = refresh(app, session.refresh_token).get_json()
    clock.advance(seconds=11)

    answers = at_once(*[lambda: refresh(app, session.refresh_token)] * 20)

    codes = sorted(answer.get_json()["code"] for answer in answers)
    assert codes == ["refresh_token_reused", *["token_revoked"] * 19]
    assert me(app, pair) == 401
    assert len(events(app, type_="session.reuse_detected")) == 1
    assert len(events(app, type_="session.revoked")) == 1


# Reuse


def test_a_reuse_is_rejected_and_its_effects_are_stored(
    app: Flask, robin: MadeUser, session: SignedInClient, log_in: LogIn, clock: ManualClock
) -> None:
    other = log_in(robin)
    pair = refresh(app, session.refresh_token).get_json()
    clock.advance(seconds=11)

    refused = refresh(app, session.refresh_token)

    assert (refused.status_code, refused.get_json()["code"]) == (401, "refresh_token_reused")
    assert me(app, pair) == 401
    assert refresh(app, pair["refresh_token"]).get_json()["code"] == "token_revoked"
    (row,) = audit_rows(app, action="auth.refresh_reuse_detected")
    assert (row.outcome, str(row.session_id)) == ("denied", session.session_id)
    assert other.get("/api/v1/auth/me").status_code == 200  # Only that session.


@pytest.mark.parametrize(("seconds", "status"), [(0, 200), (9, 200), (11, 401)])
def test_the_predecessor_is_accepted_during_the_grace_period(
    app: Flask, session: SignedInClient, clock: ManualClock, seconds: int, status: int
) -> None:
    pair = refresh(app, session.refresh_token).get_json()

    clock.advance(seconds=seconds)
    again = refresh(app, session.refresh_token)

    assert again.status_code == status
    if status == 200:
        assert again.get_json()["refresh_token"] == pair["refresh_token"]


def test_using_the_grace_period_does_not_extend_it(
    app: Flask, session: SignedInClient, clock: ManualClock
) -> None:
    refresh(app, session.refresh_token)
    for _ in range(2):
        clock.advance(seconds=4)
        assert refresh(app, session.refresh_token).status_code == 200

    clock.advance(seconds=4)

    assert refresh(app, session.refresh_token).get_json()["code"] == "refresh_token_reused"


def test_an_older_token_ends_the_session_even_during_the_grace_period(
    app: Flask, session: SignedInClient
) -> None:
    second = refresh(app, session.refresh_token).get_json()
    third = refresh(app, second["refresh_token"]).get_json()

    assert refresh(app, session.refresh_token).get_json()["code"] == "refresh_token_reused"
    assert me(app, third) == 401


# Lost responses and restarts


def test_a_client_that_lost_the_response_stays_signed_in(
    app: Flask, session: SignedInClient, clock: ManualClock
) -> None:
    token = session.refresh_token
    for _ in range(4):
        refresh(app, token)  # Lost.
        clock.advance(seconds=2)
        answer = refresh(app, token)
        assert answer.status_code == 200
        token = answer.get_json()["refresh_token"]
        clock.advance(minutes=20)

    assert refresh(app, token).status_code == 200


def test_a_restart_of_all_servers_changes_nothing(
    app: Flask, make_app: MakeApp, session: SignedInClient, server: redis.Redis
) -> None:
    pair = refresh(app, session.refresh_token).get_json()

    server.flushdb()
    again = refresh(make_app(), session.refresh_token).get_json()
    server.flushdb()
    after = refresh(make_app(), pair["refresh_token"])

    assert again["refresh_token"] == pair["refresh_token"]
    assert after.status_code == 200
    assert rotations(app) == 2


def test_a_reuse_is_detected_after_a_restart(
    app: Flask, make_app: MakeApp, session: SignedInClient, server: redis.Redis
) -> None:
    second = refresh(app, session.refresh_token).get_json()
    refresh(app, second["refresh_token"])
    refresh(app, session.refresh_token)

    server.flushdb()
    answer = refresh(make_app(), second["refresh_token"])

    assert answer.get_json()["code"] == "token_revoked"


# Concurrent ends of the session


def log_out(session: SignedInClient, _robin: MadeUser, _boss: SignedInClient) -> Any:
    return session.post("/api/v1/auth/logout")


def suspend(_session: SignedInClient, robin: MadeUser, boss: SignedInClient) -> Any:
    return boss.post(f"/api/v1/users/{robin.id}/suspend")


def delete(_session: SignedInClient, robin: MadeUser, boss: SignedInClient) -> Any:
    return boss.delete(f"/api/v1/users/{robin.id}")


def change_password(session: SignedInClient, _robin: MadeUser, _boss: SignedInClient) -> Any:
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}
    return session.post("/api/v1/auth/change-password", json=body)


@pytest.mark.parametrize("end", [log_out, suspend, delete, change_password])
def test_a_refresh_concurrent_with_the_end_of_the_session_leaves_no_valid_pair(
    app: Flask,
    robin: MadeUser,
    session: SignedInClient,
    make_user: MakeUser,
    log_in: LogIn,
    end: Callable[[SignedInClient, MadeUser, SignedInClient], Any],
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))

    *refreshed, ended = at_once(
        *[lambda: refresh(app, session.refresh_token)] * 5, lambda: end(session, robin, boss)
    )

    assert ended.status_code in (200, 204)
    for answer in refreshed:
        assert answer.status_code in (200, 401)
        if answer.status_code == 200:
            assert me(app, answer.get_json()) == 401
            assert refresh(app, answer.get_json()["refresh_token"]).status_code == 401


def test_concurrent_refreshes_log_ins_and_log_outs_do_not_deadlock(
    app: Flask, robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    sessions = [log_in(robin) for _ in range(5)]

    def sign_in() -> Any:
        body = {"username": "robin", "password": PASSWORD}
        return JsonClient(app).post("/api/v1/auth/login", json=body)

    answers = at_once(
        *[lambda s=s: refresh(app, s.refresh_token) for s in sessions * 3],
        *[sign_in] * 5,
        *[lambda s=s: s.post("/api/v1/auth/logout") for s in sessions[:2]],
        lambda: boss.post(f"/api/v1/users/{robin.id}/unlock"),
        lambda: boss.delete(f"/api/v1/users/{robin.id}/sessions"),
        lambda: boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]}),
    )

    assert {answer.status_code for answer in answers} <= {200, 204, 401, 429}
