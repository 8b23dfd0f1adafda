"""A failover of the database ends no session: lost replies, and lost writes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event, select, update

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import audit_rows, events
from tests.support.metrics import sample
from tests.support.proxy import FaultProxy, proxy_to, url_through
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient
from userapi.accounts.models import User
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, reading, table_of, transaction
from userapi.sessions.models import UserSession

MakeApp = Callable[..., Flask]
_sessions = table_of(UserSession)
_users = table_of(User)

WREN = {"username": "wren", "email": "wren@example.com", "password": PASSWORD}


@pytest.fixture
def proxy(deployment: Deployment) -> Iterator[FaultProxy]:
    with proxy_to(deployment.database.url) as proxy:
        yield proxy


@pytest.fixture
def far_app(make_app: MakeApp, proxy: FaultProxy, deployment: Deployment) -> Flask:
    """Return a process that reaches the database of the other one through the proxy."""
    return make_app(DATABASE_URL=url_through(proxy, deployment.database.url))


@pytest.fixture
def far_admin(far_app: Flask, make_user: MakeUser, log_in: LogIn) -> JsonClient:
    """Return an administrator's client of `far_app`, which has connected to its database."""
    admin = log_in(make_user("admin", roles=("superadmin",)))
    client = JsonClient(far_app, token=admin.access_token)
    assert client.get("/api/v1/users/").status_code == 200
    return client


@pytest.fixture
def session(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("robin"))


def refresh(app: Flask, token: str) -> Any:
    return JsonClient(app).post("/api/v1/auth/refresh", json={"refresh_token": token})


def lose_the_reply(app: Flask, proxy: FaultProxy, token: str) -> Any:
    """Refresh by a statement that the server runs, but whose reply the proxy drops."""
    proxy.cut_mid_answer(1)
    answer = refresh(app, token)
    proxy.pass_on()
    return answer


def set_back(app: Flask, session: SignedInClient, **columns: int) -> None:
    """Give the session's row older values, as a failover does that has lost the last writes."""
    with app.app_context(), transaction() as database:
        database.execute(
            update(_sessions).where(_sessions.c.id == UUID(session.session_id)).values(**columns)
        )


# Replies that are lost


def test_a_refresh_without_a_reply_may_be_repeated_for_15_minutes(
    app: Flask, far_app: Flask, proxy: FaultProxy, session: SignedInClient, clock: ManualClock
) -> None:
    """A standby that stalled for 13 s ended every session whose refresh it had delayed."""
    assert me(far_app, session.access_token) == 200

    lost = lose_the_reply(far_app, proxy, session.refresh_token)

    assert (lost.status_code, lost.get_json()["code"]) == (503, "outcome_unknown")
    assert int(lost.headers["Retry-After"]) > 0
    assert len(audit_rows(app, action="auth.refresh")) == 1
    clock.advance(minutes=14)
    again = refresh(far_app, session.refresh_token)
    assert again.status_code == 200
    assert me(app, again.get_json()["access_token"]) == 200
    assert refresh(app, again.get_json()["refresh_token"]).status_code == 200
    assert events(app, type_="session.reuse_detected") == []


@pytest.mark.thorough
def test_another_process_accepts_the_repeated_refresh(
    app: Flask, far_app: Flask, proxy: FaultProxy, session: SignedInClient, clock: ManualClock
) -> None:
    lose_the_reply(far_app, proxy, session.refresh_token)
    clock.advance(minutes=14)

    assert refresh(app, session.refresh_token).status_code == 200


def test_without_redis_the_process_itself_accepts_the_repeated_refresh(
    make_app: MakeApp,
    proxy: FaultProxy,
    deployment: Deployment,
    session: SignedInClient,
    clock: ManualClock,
) -> None:
    alone = make_app(DATABASE_URL=url_through(proxy, deployment.database.url), REDIS_URL="")
    lose_the_reply(alone, proxy, session.refresh_token)
    clock.advance(minutes=14)

    assert refresh(alone, session.refresh_token).status_code == 200


def test_a_token_before_the_lost_refresh_still_ends_the_session(
    app: Flask, far_app: Flask, proxy: FaultProxy, session: SignedInClient, clock: ManualClock
) -> None:
    stolen = session.refresh_token
    current = refresh(app, stolen).get_json()["refresh_token"]
    clock.advance(minutes=1)
    lose_the_reply(far_app, proxy, current)

    answer = refresh(app, stolen)

    assert (answer.status_code, answer.get_json()["code"]) == (401, "refresh_token_reused")


def test_the_next_refresh_settles_the_doubt(
    app: Flask, far_app: Flask, proxy: FaultProxy, session: SignedInClient, clock: ManualClock
) -> None:
    lose_the_reply(far_app, proxy, session.refresh_token)
    successor = refresh(app, session.refresh_token).get_json()["refresh_token"]
    assert refresh(app, successor).status_code == 200
    clock.advance(minutes=1)

    answer = refresh(app, session.refresh_token)

    assert (answer.status_code, answer.get_json()["code"]) == (401, "refresh_token_reused")


def test_a_commit_without_a_reply_has_an_unknown_outcome(
    app: Flask, far_app: Flask, proxy: FaultProxy, far_admin: JsonClient
) -> None:
    with far_app.app_context():
        event.listen(db.engine, "commit", lambda _connection: proxy.cut_mid_answer(1), once=True)

    answer = far_admin.post("/api/v1/users/", json=WREN)

    assert (answer.status_code, answer.get_json()["code"]) == (503, "outcome_unknown")
    assert usernames(app) >= {"wren"}


def test_a_statement_that_fails_before_the_commit_has_changed_nothing(
    app: Flask, far_app: Flask, proxy: FaultProxy, far_admin: JsonClient
) -> None:
    with far_app.app_context():
        event.listen(db.engine, "begin", lambda _connection: proxy.cut_mid_answer(1), once=True)

    answer = far_admin.post("/api/v1/users/", json=WREN)

    assert (answer.status_code, answer.get_json()["code"]) == (503, "service_unavailable")
    assert "wren" not in usernames(app)


# Writes that are lost


@pytest.mark.both_databases
def test_a_token_newer_than_its_row_continues_the_session(
    app: Flask, session: SignedInClient
) -> None:
    """A failover to a standby 3 s behind ended every session that had refreshed meanwhile."""
    second = refresh(app, session.refresh_token).get_json()
    third = refresh(app, second["refresh_token"]).get_json()
    set_back(app, session, generation=1)

    answer = refresh(app, third["refresh_token"])

    assert answer.status_code == 200
    assert generation(app, session) == 4
    assert me(app, answer.get_json()["access_token"]) == 200
    assert refresh(app, answer.get_json()["refresh_token"]).status_code == 200
    assert events(app, type_="session.reuse_detected") == []
    details = [row.details for row in audit_rows(app, action="auth.refresh")]
    assert [each for each in details if each] == [{"state_lost": True}]
    assert sample(JsonClient(app), "sessions_ahead_total") == 1


@pytest.mark.both_databases
def test_concurrent_requests_with_a_newer_token_get_one_successor(
    app: Flask, session: SignedInClient
) -> None:
    second = refresh(app, session.refresh_token).get_json()
    set_back(app, session, generation=1)
    barrier = Barrier(8)

    def send(_: int) -> Any:
        barrier.wait(30)
        return refresh(app, second["refresh_token"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.get_json()["refresh_token"] for answer in answers}) == 1


@pytest.mark.both_databases
def test_a_token_of_a_newer_version_continues_and_an_older_one_does_not(
    app: Flask, session: SignedInClient
) -> None:
    body = {"current_password": PASSWORD, "new_password": "violet-harbour-93-lantern"}
    changed = session.post("/api/v1/auth/change-password", json=body).get_json()
    set_back(app, session, generation=1, version=1)

    newer = refresh(app, changed["refresh_token"])
    older = refresh(app, session.refresh_token)

    assert newer.status_code == 200
    assert me(app, newer.get_json()["access_token"]) == 200
    assert (older.status_code, older.get_json()["code"]) == (401, "token_revoked")
    assert me(app, session.access_token) == 401


def me(app: Flask, access_token: str) -> int:
    return int(JsonClient(app, token=access_token).get("/api/v1/auth/me").status_code)


def generation(app: Flask, session: SignedInClient) -> int:
    with app.app_context(), reading() as connection:
        found = connection.execute(
            select(_sessions.c.generation).where(_sessions.c.id == UUID(session.session_id))
        )
        return int(found.scalar_one())


def usernames(app: Flask) -> set[str]:
    with app.app_context(), reading() as connection:
        return set(connection.execute(select(_users.c.username)).scalars())
