"""A first factor and a log-in by password alone at the same moment: no session keeps the level."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import select

from tests.integration.test_races import at_once
from tests.support.deployments import Deployment
from tests.support.polling import wait_until
from tests.support.second_factors import MFA, add_app, code_of, first_step, set_up_app
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.database import reading, table_of
from userapi.sessions.models import UserSession

_sessions = table_of(UserSession)


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def live_levels(app: Flask) -> list[str]:
    with app.app_context(), reading() as connection:
        query = select(_sessions.c.acr).where(_sessions.c.revoked_at.is_(None))
        return list(connection.scalars(query))


def waits(deployment: Deployment, number: int) -> bool:
    """Return whether so many transactions wait for a row."""
    with closing(psycopg2.connect(deployment.database.url)) as watching:
        cursor = watching.cursor()
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchall()[0][0] == number)


@pytest.mark.parametrize("first", ["confirm", "log in"])
def test_no_session_of_the_password_alone_outlives_the_first_factor(
    app: Flask,
    deployment: Deployment,
    robin: MadeUser,
    log_in: LogIn,
    clock: ManualClock,
    first: str,
) -> None:
    """Both wait for the row of the user, which another transaction holds, in either order."""
    session = log_in(robin)
    set_up = set_up_app(session)
    body = {"code": code_of(set_up["secret"], clock)}
    calls: dict[str, Callable[[], Any]] = {
        "confirm": lambda: session.post(f"{MFA}/totp/{set_up['id']}/confirm", json=body),
        "log in": lambda: first_step(app, robin),
    }

    with (
        ThreadPoolExecutor(2) as background,
        closing(psycopg2.connect(deployment.database.url)) as other,
    ):
        other.cursor().execute("SELECT id FROM users WHERE id = %s FOR UPDATE", (robin.id,))
        answers = {}
        for number, name in enumerate(sorted(calls, key=lambda name: name != first), start=1):
            answers[name] = background.submit(calls[name])
            wait_until(partial(waits, deployment, number))
        other.commit()
        statuses = {name: answer.result(30).status_code for name, answer in answers.items()}

    assert statuses["confirm"] == 200
    assert statuses["log in"] == (403 if first == "confirm" else 200)
    assert live_levels(app) == ["aal2"]


def test_two_last_factors_that_are_removed_at_once_leave_none_behind(
    app: Flask, make_app: Callable[..., Flask], robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    one = add_app(log_in(robin), clock)
    two = add_app(one.client, clock)

    answers = at_once(
        lambda: two.client.delete(f"{MFA}/{one.id}"), lambda: two.client.delete(f"{MFA}/{two.id}")
    )

    assert [answer.status_code for answer in answers] == [204, 204]
    shown = two.client.get(MFA).get_json()
    assert (shown["enabled"], shown["recovery_codes_left"]) == (False, 0)
    assert first_step(app, robin).status_code == 200


def test_of_two_last_factors_that_are_removed_at_once_a_demanded_one_stays(
    make_app: Callable[..., Flask], robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    one = add_app(log_in(robin), clock)
    two = add_app(one.client, clock)
    demanding = make_app(MFA_REQUIRED_ROLES="user")
    client = type(two.client)(
        demanding,
        {
            "access_token": two.client.access_token,
            "refresh_token": two.client.refresh_token,
            "session_id": two.client.session_id,
        },
    )

    answers = at_once(
        lambda: client.delete(f"{MFA}/{one.id}"), lambda: client.delete(f"{MFA}/{two.id}")
    )

    assert sorted(answer.status_code for answer in answers) == [204, 409]


def test_new_recovery_codes_at_once_leave_one_set(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = add_app(log_in(robin), clock).client

    answers = at_once(*[lambda: client.post(f"{MFA}/recovery-codes")] * 4)

    assert [answer.status_code for answer in answers] == [201] * 4
    assert client.get(MFA).get_json()["recovery_codes_left"] == 10
