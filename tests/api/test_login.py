"""Log-in: responses, lockout, stored rows and events."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import bcrypt
import pytest
from flask import Flask
from sqlalchemy import select, update

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.polling import possible_countdown
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.accounts.models import User, UserStatus
from userapi.clock import ManualClock
from userapi.infrastructure.database import reading, transaction

pytestmark = pytest.mark.core


def try_to_log_in(client: JsonClient, username: str, password: str = PASSWORD) -> Any:
    return client.post("/api/v1/auth/login", json={"username": username, "password": password})


def test_a_user_logs_in_by_name_or_address(client: JsonClient, make_user: MakeUser) -> None:
    make_user("robin")

    for identifier in ("robin", "ROBIN", "robin@example.com", "Robin@Example.com"):
        answer = try_to_log_in(client, identifier)

        assert answer.status_code == 200
        body = answer.get_json()
        assert body["token_type"] == "bearer"
        assert body["expires_in"] == 30 * 60
        assert body["refresh_expires_in"] == 7 * 24 * 3600
        assert body["user"]["username"] == "robin"
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_log_in_writes_an_audit_row_and_an_event(
    app: Flask, client: JsonClient, make_user: MakeUser
) -> None:
    robin = make_user("robin")

    session_id = try_to_log_in(client, "robin").get_json()["session_id"]

    (row,) = audit_rows(app, action="auth.login")
    assert (row.outcome, str(row.actor_id), str(row.session_id)) == (
        "success",
        robin.id,
        session_id,
    )
    (event,) = events(app, type_="session.created")
    assert event.subject == robin.id
    assert event.data["session_id"] == session_id


def test_unknown_users_and_wrong_passwords_get_the_same_response(
    client: JsonClient, make_user: MakeUser
) -> None:
    make_user("robin")
    make_user("sus", status=UserStatus.SUSPENDED)

    answers = [
        try_to_log_in(client, "nobody", "wrong-password-1"),
        try_to_log_in(client, "robin", "wrong-password-1"),
        try_to_log_in(client, "sus", "wrong-password-1"),
    ]

    bodies = [answer.get_json() for answer in answers]
    for body in bodies:
        body.pop("correlation_id")
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["code"] == "invalid_credentials"
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}


@pytest.mark.parametrize(
    ("status", "code"),
    [(UserStatus.SUSPENDED, "account_suspended"), (UserStatus.PENDING, "account_pending")],
)
def test_only_the_correct_password_reveals_the_status(
    client: JsonClient, make_user: MakeUser, status: UserStatus, code: str
) -> None:
    make_user("robin", status=status)

    assert try_to_log_in(client, "robin", "wrong-password-1").status_code == 401
    answer = try_to_log_in(client, "robin")

    assert answer.status_code == 403
    assert answer.get_json()["code"] == code


def test_the_fifth_failure_locks_until_the_lock_expires(
    app: Flask, client: JsonClient, make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("robin")

    began = time.monotonic()
    statuses = [try_to_log_in(client, "robin", "wrong-password-1").status_code for _ in range(5)]
    locked = try_to_log_in(client, "robin")
    possible_seconds = possible_countdown(60, began=began)
    clock.advance(seconds=61)
    unlocked = try_to_log_in(client, "robin")

    assert statuses == [401] * 5
    assert locked.status_code == 429
    assert locked.get_json()["code"] == "too_many_attempts"
    assert int(locked.headers["Retry-After"]) in possible_seconds
    assert unlocked.status_code == 200
    assert [mail.kind for mail in mails(app)] == ["account_locked"]
    assert len(audit_rows(app, action="user.locked")) == 1
    assert len(audit_rows(app, action="auth.login_blocked")) == 1


def test_an_unknown_identifier_is_locked_too(client: JsonClient) -> None:
    answers = [try_to_log_in(client, "nobody", "wrong-password-1") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [401] * 5 + [429]


def test_the_lock_of_the_name_does_not_lock_the_address(
    client: JsonClient, make_user: MakeUser
) -> None:
    make_user("robin")
    for _ in range(6):
        try_to_log_in(client, "robin", "wrong-password-1")

    assert try_to_log_in(client, "robin@example.com").status_code == 200
    assert try_to_log_in(client, "robin").status_code == 429


def test_a_lock_ends_no_session(client: JsonClient, make_user: MakeUser, log_in: LogIn) -> None:
    robin = log_in(make_user("robin"))
    for _ in range(6):
        try_to_log_in(client, "robin", "wrong-password-1")

    assert robin.get("/api/v1/auth/me").status_code == 200


def test_a_failed_rehash_does_not_fail_the_log_in(
    app: Flask, client: JsonClient, make_user: MakeUser
) -> None:
    """Another system hashed a text that is longer than a password may be here."""
    make_user("robin")
    typed = "heron-marble-94-" * 40
    foreign = bcrypt.hashpw(typed.encode()[:72], bcrypt.gensalt(4)).decode()
    with app.app_context(), transaction() as session:
        session.execute(update(User).values(password_hash=foreign))

    answer = try_to_log_in(client, "robin", typed)

    assert answer.status_code == 200
    with app.app_context(), reading() as connection:
        assert connection.scalar(select(User.password_hash)) == foreign


def test_remember_me_lasts_longer(client: JsonClient, make_user: MakeUser) -> None:
    make_user("robin")

    answer = client.post(
        "/api/v1/auth/login",
        json={"username": "robin", "password": PASSWORD, "remember_me": True},
    )

    sessions = client.as_user(answer.get_json()["access_token"]).get("/api/v1/auth/sessions")
    (session,) = sessions.get_json()["items"]
    lasts = datetime.fromisoformat(session["expires_at"]) - datetime.fromisoformat(
        session["created_at"]
    )
    assert answer.get_json()["refresh_expires_in"] == 30 * 24 * 3600
    assert lasts == timedelta(days=30)


def test_a_user_who_must_change_the_password_can_do_nothing_else(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = log_in(make_user("robin", must_change_password=True))

    refused = robin.get("/api/v1/auth/me")
    changed = robin.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"},
    )

    assert refused.status_code == 403
    assert refused.get_json()["code"] == "password_change_required"
    assert changed.status_code == 200
    renewed = client.as_user(changed.get_json()["access_token"])
    assert renewed.get("/api/v1/auth/me").status_code == 200


def test_above_the_cap_the_oldest_session_ends(
    make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    clients = []
    for _ in range(11):
        clients.append(log_in(robin))
        clock.advance(seconds=1)

    alive = [c.get("/api/v1/auth/verify").status_code for c in clients]
    assert alive == [401] + [200] * 10


@pytest.mark.parametrize(("cap", "count"), [("2", 1), ("1", 2)])
def test_a_session_ended_by_the_cap_is_recorded_before_the_new_one(
    app: Flask,
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    clock: ManualClock,
    cap: str,
    count: int,
) -> None:
    """Also if an operator has lowered the cap, so that several sessions end together."""
    robin = make_user("robin")
    begun = []
    for _ in range(2):
        begun.append(try_to_log_in(JsonClient(app), "robin").get_json()["session_id"])
        clock.advance(seconds=1)

    capped = make_app(SESSION_MAX_PER_USER=cap)
    begun.append(try_to_log_in(JsonClient(capped), "robin").get_json()["session_id"])

    ended = begun[:count]
    told = [(event.type, event.data.get("session_id")) for event in events(app)]
    assert told[-count - 1 :] == [("session.revoked", id_) for id_ in ended] + [
        ("session.created", begun[-1])
    ]
    assert [event.data["reason"] for event in events(app, type_="session.revoked")] == (
        ["cap_reached"] * count
    )
    rows = audit_rows(app, action="session.revoked")
    assert [row.target_id for row in rows] == ended
    for row in rows:
        assert (row.target_type, str(row.actor_id)) == ("session", robin.id)
        assert row.details == {"reason": "cap_reached", "user_id": robin.id}


@pytest.mark.parametrize(
    "body",
    [
        {"username": "robin"},
        {"username": 1, "password": "x"},
        {"username": "robin", "password": None},
        {"username": "robin", "password": "x", "extra": 1},
        {"username": "robin", "password": "x", "remember_me": "yes"},
        [],
        "text",
    ],
)
def test_a_body_of_another_shape_is_422(client: JsonClient, body: Any) -> None:
    assert client.post("/api/v1/auth/login", json=body).status_code == 422
