"""Races that the database resolves: concurrent requests on real PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import audit_rows, events
from tests.support.polling import wait_until
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.wiring.services import Services

NEW = {"username": "ada", "email": "ada@example.com", "password": "violet-harbour-93-lantern"}


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls at the same moment and return what they return."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def waits_for_a_lock(deployment: Deployment) -> bool:
    """Return whether a transaction waits for a row that another one has locked."""
    with closing(psycopg2.connect(deployment.database.url)) as watching:
        cursor = watching.cursor()
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchall()[0][0])


def test_two_superadmins_cannot_demote_each_other_at_once(
    make_user: MakeUser, log_in: LogIn
) -> None:
    one, two = make_user("one", roles=["superadmin"]), make_user("two", roles=["superadmin"])
    first, second = log_in(one), log_in(two)
    body = {"roles": ["user"]}

    answers = at_once(
        lambda: first.put(f"/api/v1/users/{two.id}/roles", json=body),
        lambda: second.put(f"/api/v1/users/{one.id}/roles", json=body),
    )

    codes = sorted((a.status_code, a.get_json().get("code")) for a in answers)
    # The one who comes second has lost the right by then, or would remove the last.
    assert codes[0] == (200, None)
    assert codes[1] in [
        (403, "permission_denied"),
        (403, "insufficient_rank"),
        (409, "last_superadmin"),
    ]


def test_the_last_two_superadmins_cannot_be_suspended_at_once(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    users = [make_user(name, roles=["superadmin"]) for name in ("one", "two")]
    clients = [log_in(user) for user in users]

    answers = at_once(
        lambda: clients[0].post(f"/api/v1/users/{users[1].id}/suspend"),
        lambda: clients[1].post(f"/api/v1/users/{users[0].id}/suspend"),
    )

    assert sorted(a.status_code for a in answers)[0] == 200
    assert len(audit_rows(app, action="user.suspended")) == 1


def test_a_create_that_is_sent_many_times_at_once_happens_once(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))
    headers = {"Idempotency-Key": "ada-at-once"}

    answers = at_once(
        *[lambda: admin.post("/api/v1/users/", json=NEW, headers=headers) for _ in range(8)]
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.data for answer in answers}) == 1
    assert sum("Idempotent-Replay" in answer.headers for answer in answers) == 7
    assert len(audit_rows(app, action="user.created")) == 2  # The administrator and Ada.
    assert len(events(app, type_="user.created")) == 2


def test_concurrent_log_ins_that_replace_the_hash_all_succeed(
    make_user: MakeUser, make_app: Callable[..., Flask]
) -> None:
    make_user("robin")
    stronger = make_app(PASSWORD_HASH_ROUNDS="5")
    body = {"username": "robin", "password": PASSWORD}

    answers = at_once(
        *[lambda: JsonClient(stronger).post("/api/v1/auth/login", json=body) for _ in range(4)]
    )

    assert {answer.status_code for answer in answers} == {200}


def test_log_ins_at_once_never_leave_more_sessions_than_the_cap(
    app: Flask, make_app: Callable[..., Flask], make_user: MakeUser, services: Services
) -> None:
    robin = make_user("robin")
    client = JsonClient(make_app(SESSION_MAX_PER_USER="3", LOCKOUT_THRESHOLD="20"))
    credentials = {"username": "robin", "password": robin.password}

    answers = at_once(*[lambda: client.post("/api/v1/auth/login", json=credentials)] * 8)

    assert [answer.status_code for answer in answers] == [200] * 8
    with app.app_context():
        assert services.sessions.count_live() == 3
    ends = [event.data["session_id"] for event in events(app, type_="session.revoked")]
    assert len(set(ends)) == len(ends) == 5


@pytest.mark.parametrize(
    ("change", "status", "sessions"),
    [("status = 'suspended'", 403, 0), ("email_normalized = 'r@example.com'", 200, 1)],
)
def test_a_user_who_is_changed_while_the_password_is_checked_is_looked_at_again(
    app: Flask,
    deployment: Deployment,
    make_user: MakeUser,
    change: str,
    status: int,
    sessions: int,
) -> None:
    """The log-in has checked the password, and waits for the row of the user."""
    robin = make_user("robin")
    client = JsonClient(app)
    credentials = {"username": "robin@example.com", "password": robin.password}

    with (
        ThreadPoolExecutor(1) as background,
        closing(psycopg2.connect(deployment.database.url)) as other,
    ):
        cursor = other.cursor()
        cursor.execute(
            f"UPDATE users SET {change}, access_version = access_version + 1 WHERE id = %s",
            (robin.id,),
        )
        log_in = background.submit(client.post, "/api/v1/auth/login", json=credentials)
        wait_until(lambda: waits_for_a_lock(deployment))
        other.commit()
        answer = log_in.result(20)

    assert answer.status_code == status
    assert len(events(app, type_="session.created")) == sessions


def test_a_user_who_is_changed_by_two_at_once_keeps_both_changes(
    make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    admin = log_in(make_user("boss", roles=["admin"]))
    path = f"/api/v1/users/{robin.id}"

    at_once(
        lambda: admin.patch(path, json={"first_name": "Robin"}),
        lambda: admin.patch(path, json={"last_name": "Hood"}),
    )

    user = admin.get(path).get_json()
    assert (user["first_name"], user["last_name"]) == ("Robin", "Hood")


def test_of_two_writes_with_the_same_entity_tag_one_is_stale(
    make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    admin = log_in(make_user("boss", roles=["admin"]))
    path = f"/api/v1/users/{robin.id}"
    match = {"If-Match": admin.get(path).headers["ETag"]}

    answers = at_once(
        *[
            lambda n=n: admin.patch(path, json={"first_name": f"R{n}"}, headers=match)
            for n in range(4)
        ]
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


def test_a_password_that_is_changed_while_it_is_checked_opens_nothing(
    app: Flask, deployment: Deployment, make_user: MakeUser
) -> None:
    """The log-in has checked the former password, and waits for the row of the user."""
    robin = make_user("robin")
    make_user("zoe", password="granite-otter-57-teapot")
    client = JsonClient(app)

    with (
        ThreadPoolExecutor(1) as background,
        closing(psycopg2.connect(deployment.database.url)) as other,
    ):
        cursor = other.cursor()
        cursor.execute("SELECT 1 FROM users WHERE id = %s FOR UPDATE", (robin.id,))
        credentials = {"username": "robin", "password": robin.password}
        log_in = background.submit(client.post, "/api/v1/auth/login", json=credentials)
        wait_until(lambda: waits_for_a_lock(deployment))
        cursor.execute(
            "UPDATE users SET password_hash ="
            " (SELECT password_hash FROM users WHERE username = 'zoe') WHERE id = %s",
            (robin.id,),
        )
        other.commit()
        answer = log_in.result(20)

    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_credentials")
    assert [row.outcome for row in audit_rows(app, action="auth.login")] == ["failure"]
