"""One-time tokens: concurrent uses, accounts deleted meanwhile, and a dump of the database."""

import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import text

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.mailbox import Mailbox
from tests.support.polling import wait_until
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.infrastructure.database import db
from userapi.infrastructure.log_handlers import LineHandler

pytestmark = pytest.mark.thorough

MakeApp = Callable[..., Flask]
Ask = Callable[[Flask, MakeUser, LogIn], None]

NEW_PASSWORD = "granite-otter-57-teapot"
RESET, VERIFY = "/api/v1/auth/reset-password/confirm", "/api/v1/auth/verify-email"


def _ask_for_reset(app: Flask, make_user: MakeUser, _log_in: LogIn) -> None:
    robin = make_user("robin")
    JsonClient(app).post("/api/v1/auth/reset-password", json={"email": robin.email})


def _invite(_app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    boss.post("/api/v1/users/", json={"username": "robin", "email": "robin@example.com"})


def _register(app: Flask, _make_user: MakeUser, _log_in: LogIn) -> None:
    body = {"username": "robin", "email": "robin@example.com", "password": PASSWORD}
    JsonClient(app).post("/api/v1/auth/register", json=body)


def _ask_for_another_address(_app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    body = {"new_email": "hood@example.com", "current_password": PASSWORD}
    log_in(make_user("robin")).post("/api/v1/auth/change-email", json=body)


WAYS = [
    pytest.param(_ask_for_reset, RESET, "auth.password_reset", id="reset"),
    pytest.param(_invite, RESET, "auth.password_reset", id="invitation"),
    pytest.param(_register, VERIFY, "user.email_verified", id="verification"),
    pytest.param(_ask_for_another_address, VERIFY, "user.email_changed", id="change of address"),
]


@pytest.fixture
def large_app(make_app: MakeApp) -> Flask:
    """Return the application with a connection for each of many threads."""
    return make_app(DATABASE_POOL_SIZE="25", FEATURE_EMAIL_VERIFICATION="true")


def body_for(path: str, token: str, number: int = 0) -> dict[str, str]:
    if path == VERIFY:
        return {"token": token}
    return {"token": token, "new_password": f"{NEW_PASSWORD}-{number}"}


@pytest.mark.parametrize("ask, path, action", WAYS)
def test_of_twenty_concurrent_uses_of_a_token_one_succeeds(
    large_app: Flask, make_user: MakeUser, log_in: LogIn, ask: Ask, path: str, action: str
) -> None:
    ask(large_app, make_user, log_in)
    token = Mailbox(large_app).token()
    barrier = Barrier(20)

    def attempt(number: int) -> tuple[int, str | None]:
        client = JsonClient(large_app)
        barrier.wait(20)
        answer = client.post(path, json=body_for(path, token, number))
        return answer.status_code, (answer.get_json(silent=True) or {}).get("code")

    with ThreadPoolExecutor(20) as pool:
        answers = sorted(pool.map(attempt, range(20)), key=str)

    assert answers == [(204, None)] + [(400, "invalid_token")] * 19
    assert len(audit_rows(large_app, action=action)) == 1


@pytest.mark.both_databases
def test_of_two_concurrent_changes_to_one_address_one_succeeds(
    large_app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    """An address taken between the request and its confirmation caused a 500."""
    tokens = []
    for name in ("ada", "robin"):
        body = {"new_email": "wanted@example.com", "current_password": PASSWORD}
        log_in(make_user(name)).post("/api/v1/auth/change-email", json=body)
        tokens.append(Mailbox(large_app).token())
    barrier = Barrier(2)

    def confirm(token: str) -> tuple[int, str | None]:
        barrier.wait(10)
        answer = JsonClient(large_app).post(VERIFY, json={"token": token})
        return answer.status_code, (answer.get_json(silent=True) or {}).get("code")

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(confirm, tokens), key=str)

    assert answers == [(204, None), (409, "email_taken")]
    assert len(events(large_app, type_="user.email_changed")) == 1


@pytest.mark.both_databases
def test_a_confirmed_change_of_address_voids_every_other_link(
    app: Flask, make_user: MakeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    session, client = log_in(make_user("robin")), JsonClient(app)
    client.post("/api/v1/auth/reset-password", json={"email": "robin@example.com"})
    reset = mailbox.token()
    body = {"new_email": "hood@example.com", "current_password": PASSWORD}
    session.post("/api/v1/auth/change-email", json=body)
    assert client.post(VERIFY, json={"token": mailbox.token()}).status_code == 204

    answer = client.post(RESET, json=body_for(RESET, reset))

    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_token")


def test_two_superadmins_cannot_both_delete_their_accounts_at_once(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    sessions = [log_in(make_user(name, roles=["superadmin"])) for name in ("one", "two")]
    barrier = Barrier(2)

    def leave(number: int) -> int:
        barrier.wait(10)
        body = {"current_password": PASSWORD}
        return sessions[number].delete("/api/v1/users/me", json=body).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(leave, range(2))) == [204, 409]


# Concurrent changes of the account


def while_locked(app: Flask, request: Callable[[], Any], change: str) -> tuple[int, str]:
    """Send a request, change its user while it waits for the row, and return the response."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def is_waiting() -> bool:
        with db.engine.connect() as connection:
            return bool(connection.execute(text(waiting)).scalar_one())

    with ThreadPoolExecutor(1) as pool, app.app_context(), db.engine.begin() as other:
        other.execute(text("SELECT 1 FROM users WHERE username = 'robin' FOR UPDATE"))
        answer = pool.submit(request)
        wait_until(is_waiting)
        other.execute(text(change))
        other.commit()
        response = answer.result(10)
    return response.status_code, response.get_json()["code"]


MEANWHILE = {
    "deleted": "DELETE FROM users WHERE username = 'robin'",
    "suspended": "UPDATE users SET status = 'suspended' WHERE username = 'robin'",
}


@pytest.mark.parametrize("change", MEANWHILE.values(), ids=MEANWHILE.keys())
@pytest.mark.parametrize("ask, path, action", WAYS)
def test_a_token_of_an_account_deleted_meanwhile_is_invalid(
    large_app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    ask: Ask,
    path: str,
    action: str,
    change: str,
) -> None:
    """The response was 401 `token_revoked`, although the request has no access token."""
    ask(large_app, make_user, log_in)
    token = Mailbox(large_app).token()

    answer = while_locked(
        large_app,
        lambda: JsonClient(large_app).post(path, json=body_for(path, token)),
        change,
    )

    assert answer == (400, "invalid_token")


@pytest.mark.parametrize("change", MEANWHILE.values(), ids=MEANWHILE.keys())
@pytest.mark.parametrize("wish", ["leave", "change address"])
def test_a_user_suspended_or_deleted_meanwhile_is_signed_out(
    large_app: Flask, make_user: MakeUser, log_in: LogIn, wish: str, change: str
) -> None:
    """The response was about an invalid link, although no link was used."""
    session = log_in(make_user("robin"))
    body = {"current_password": PASSWORD}
    wishes: dict[str, Callable[[], Any]] = {
        "leave": lambda: session.delete("/api/v1/users/me", json=body),
        "change address": lambda: session.post(
            "/api/v1/auth/change-email", json={**body, "new_email": "hood@example.com"}
        ),
    }

    assert while_locked(large_app, wishes[wish], change) == (401, "token_revoked")


# At rest


@pytest.fixture
def log(large_app: Flask) -> Iterator[io.StringIO]:
    """The lines that the service writes."""
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, LineHandler)]
    lines = io.StringIO()
    stream = handler.setStream(lines)
    yield lines
    handler.setStream(stream)


@pytest.mark.parametrize("ask, path, action", WAYS)
def test_a_token_is_only_in_the_mail(
    large_app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    redis_url: str,
    log: io.StringIO,
    ask: Ask,
    path: str,
    action: str,
) -> None:
    ask(large_app, make_user, log_in)
    token = Mailbox(large_app).token()
    client = JsonClient(large_app)

    answers = [client.post(path, json=body_for(path, token)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 400]
    dump = {
        "answers": "".join(answer.text + str(answer.headers) for answer in answers),
        "log": log.getvalue(),
        "redis": repr(_everything_in(redis_url)),
        **_everything_in_the_database(large_app),
    }
    assert [place for place, content in dump.items() if token in content] == []
    assert {"one_time_tokens", "outgoing_mails", "outbox_events", "audit_logs"} <= dump.keys()
    assert f'"path":"{path}"' in dump["log"]  # Checks that the log is not empty.


def _everything_in(redis_url: str) -> list[Any]:
    store = redis.Redis.from_url(redis_url)
    return [(key, store.dump(key), store.type(key)) for key in store.scan_iter("*")]


def _everything_in_the_database(app: Flask) -> dict[str, str]:
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with app.app_context(), db.engine.connect() as connection:
        return {
            name: repr(connection.execute(text(f'SELECT * FROM "{name}"')).all())
            for name in connection.execute(text(tables)).scalars().all()
        }
