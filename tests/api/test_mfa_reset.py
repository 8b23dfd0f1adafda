"""The reset of two-step sign-in by an administrator."""

from typing import Any

import pytest
from flask import Flask

from tests.support.facts import audit_rows, events, mails
from tests.support.second_factors import (
    MFA,
    App,
    add_app,
    begin_step,
    first_step,
    log_in_with_code,
    second_step,
    set_up_app,
)
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    added = add_app(log_in(robin), clock)
    begin_step(clock)
    return added


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


def path(user_id: str) -> str:
    return f"/api/v1/users/{user_id}/mfa"


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def test_a_reset_removes_all_factors_and_codes(
    app: Flask, robin: MadeUser, phone: App, boss: SignedInClient
) -> None:
    other = log_in_with_code(app, robin, phone.code())
    token = first_step(app, robin).get_json()["mfa_token"]

    answer = boss.delete(path(robin.id))

    assert (answer.status_code, answer.data) == (204, b"")
    for session in (phone.client, other):
        assert problem(session.get("/api/v1/auth/me")) == (401, "token_revoked")
    assert problem(second_step(app, token, phone.recovery_codes[0])) == (401, "mfa_token_invalid")
    shown = boss.get(path(robin.id)).get_json()
    assert (shown["enabled"], shown["factors"], shown["recovery_codes_left"]) == (False, [], 0)
    # Password and status stay, and the second step is gone.
    assert first_step(app, robin).status_code == 200


def test_what_a_reset_leaves_behind(
    app: Flask, robin: MadeUser, phone: App, boss: SignedInClient
) -> None:
    boss.delete(path(robin.id))

    (row,) = audit_rows(app, action="mfa.reset")
    assert (row.actor_username, row.target_id) == ("boss", robin.id)
    assert row.details == {"passkey": 0, "totp": 1}
    (event,) = events(app, type_="user.mfa_disabled")
    assert (event.data["user_id"], event.data["reason"]) == (robin.id, "admin")
    assert events(app, type_="session.revoked")[-1].data["reason"] == "mfa_reset"
    assert mails(app)[-1].kind == "mfa_reset"


def test_without_factors_nothing_happens(
    app: Flask, robin: MadeUser, boss: SignedInClient, log_in: LogIn
) -> None:
    session = log_in(robin)
    set_up_app(session)

    answer = boss.delete(path(robin.id))

    assert answer.status_code == 204
    assert session.get("/api/v1/auth/me").status_code == 200
    assert audit_rows(app, action="mfa.reset") == []
    assert mails(app) == []


def test_who_may_reset(
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    boss: SignedInClient,
) -> None:
    equal = make_user("equal", roles=["admin"])
    moderator = log_in(make_user("mod", roles=["moderator"]))
    boss_id = boss.get("/api/v1/auth/me").get_json()["id"]

    refused = [
        problem(moderator.delete(path(robin.id))),
        problem(phone.client.delete(path(robin.id))),
        problem(boss.delete(path(equal.id))),
        problem(boss.delete(path(boss_id))),
        problem(boss.delete(path(NOBODY))),
    ]

    assert refused == [
        (403, "permission_denied"),
        (403, "permission_denied"),
        (403, "insufficient_rank"),
        (409, "self_action_refused"),
        (404, "not_found"),
    ]
    assert moderator.delete(path(robin.id)).get_json()["permission"] == "users:reset_mfa"
    assert phone.client.get(MFA).get_json()["enabled"] is True


def test_a_reset_needs_a_fresh_session(
    robin: MadeUser, phone: App, boss: SignedInClient, clock: ManualClock
) -> None:
    clock.advance(seconds=901)

    answers = [boss.delete(path(user_id)) for user_id in (robin.id, NOBODY)]

    assert [problem(answer) for answer in answers] == [
        (401, "insufficient_user_authentication")
    ] * 2


def test_a_custom_role_can_hold_the_permission_alone(
    make_user: MakeUser, log_in: LogIn, robin: MadeUser, phone: App
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))
    role = {"name": "helpdesk", "permissions": ["users:read", "users:reset_mfa"]}
    assert chief.post("/api/v1/roles/", json=role).status_code == 201
    helper = log_in(make_user("helper", roles=["helpdesk"]))

    assert helper.delete(path(robin.id)).status_code == 204


def test_an_operator_can_reset_the_last_superadmin(
    app: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    chief = make_user("chief", roles=["superadmin"])
    add_app(log_in(chief), clock)

    first = app.test_cli_runner().invoke(args=["users", "reset-mfa", "chief"])
    again = app.test_cli_runner().invoke(args=["users", "reset-mfa", "chief"])

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "Removed the second factors of chief" in first.output
    assert "has no second factor" in again.output
    (row,) = audit_rows(app, action="mfa.reset")
    assert (row.actor_type, row.actor_username) == ("system", "cli")
    (event,) = events(app, type_="user.mfa_disabled")
    assert event.data["reason"] == "system"
    assert first_step(app, chief).status_code == 200
