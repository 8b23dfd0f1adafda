"""A refresh writes the same rows on both of its paths.

PostgreSQL rotates by one statement (tests/integration/test_round_trips.py counts it), SQLite step
by step with locks.
"""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.database import (
    reading,
    table_of,
)
from userapi.sessions.models import UserSession

pytestmark = [pytest.mark.both_databases, pytest.mark.core]
_sessions = table_of(UserSession)


def session_rows(app: Flask) -> list[dict[str, Any]]:
    with app.app_context(), reading() as connection:
        rows = connection.execute(select(_sessions).order_by(_sessions.c.id)).mappings()
        return [dict(row) for row in rows]


@pytest.mark.parametrize("must_change_password", [False, True])
@pytest.mark.parametrize("remember_me", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"User-Agent": "Robin/9"},
        {"User-Agent": "Robin/" + "9" * 600, "X-Correlation-ID": "refresh-parity-0001"},
    ],
    ids=["short", "long"],
)
def test_a_rotation_writes_the_same_rows_on_both_paths(
    app: Flask,
    clock: ManualClock,
    make_user: MakeUser,
    log_in: LogIn,
    must_change_password: bool,
    remember_me: bool,
    headers: dict[str, str],
) -> None:
    user = make_user("robin", roles=("admin",), must_change_password=must_change_password)
    other = log_in(make_user("wren"))
    own = log_in(user, remember_me=remember_me)
    sessions_before, events_before = session_rows(app), events(app)
    clock.advance(seconds=90)
    asked_at = clock.now()

    answer = JsonClient(app).post(
        "/api/v1/auth/refresh", json={"refresh_token": own.refresh_token}, headers=headers
    )

    assert answer.status_code == 200
    sessions_after = session_rows(app)
    [rotated] = [row for row in sessions_after if row["id"] == UUID(own.session_id)]
    moment = rotated["rotated_at"]
    assert asked_at <= moment <= clock.now()
    changed = {"generation": 2, "rotated_at": moment, "last_used_at": moment}
    assert sessions_after == [
        row | (changed if row["id"] == rotated["id"] else {}) for row in sessions_before
    ]
    assert UUID(other.session_id) in {row["id"] for row in sessions_before}
    assert events(app) == events_before
    [audited] = [row._asdict() for row in audit_rows(app, action="auth.refresh")]
    assert isinstance(audited.pop("id"), UUID)
    assert asked_at <= audited.pop("occurred_at") <= clock.now()
    assert audited == {
        "action": "auth.refresh",
        "outcome": "success",
        "actor_id": UUID(user.id),
        "actor_username": "robin",
        "actor_type": "user",
        "session_id": UUID(own.session_id),
        "key_id": None,
        "target_type": "session",
        "target_id": own.session_id,
        "user_agent": headers["User-Agent"][:512],
        "ip_address": "127.0.0.1",
        "correlation_id": answer.headers["X-Correlation-ID"],
        "changes": None,
        "details": None,
    }


def test_a_repeated_refresh_writes_nothing_on_both_paths(
    app: Flask, clock: ManualClock, make_user: MakeUser, log_in: LogIn
) -> None:
    own = log_in(make_user("robin"))
    client, body = JsonClient(app), {"refresh_token": own.refresh_token}
    first = client.post("/api/v1/auth/refresh", json=body)
    before = session_rows(app), audit_rows(app), events(app)
    clock.advance(seconds=5)

    again = client.post("/api/v1/auth/refresh", json=body)

    assert again.get_json()["refresh_token"] == first.get_json()["refresh_token"]
    assert (session_rows(app), audit_rows(app), events(app)) == before
