"""The second step of a log-in: an mfa_token and a code of an app, or a recovery code."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.mailbox import Mailbox
from tests.support.second_factors import (
    MFA,
    SECOND_STEP,
    App,
    add_app,
    begin_step,
    code_of,
    first_step,
    log_in_with_code,
    mfa_token,
    second_step,
    wrong_code,
)
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser
from userapi.accounts.views import users
from userapi.clock import ManualClock
from userapi.infrastructure.database import reading

NEW_PASSWORD = "granite-otter-57-teapot"
INVALID_CODE = (401, "invalid_code")
TOKEN_INVALID = (401, "mfa_token_invalid")


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    """Return an app of Robin, at the beginning of a step whose code is unused."""
    added = add_app(log_in(robin), clock)
    begin_step(clock)
    return added


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def outcome(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.get_json().get("code")


# The first step


def test_the_right_password_is_answered_with_a_token_for_the_second_step(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    before = len(events(app, type_="session.created"))
    last_login_at = phone.client.get("/api/v1/auth/me").get_json()["last_login_at"]

    answer = first_step(app, robin)

    assert answer.status_code == 403
    body = answer.get_json()
    assert (body["code"], body["expires_in"]) == ("mfa_required", 300)
    assert body["methods"] == ["totp", "recovery_code"]
    assert len(body["mfa_token"]) == 43
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(events(app, type_="session.created")) == before
    assert phone.client.get("/api/v1/auth/me").get_json()["last_login_at"] == last_login_at
    (row,) = audit_rows(app, action="auth.mfa_required")
    assert (row.actor_username, row.target_id, row.outcome) == ("robin", robin.id, "success")
    assert body["mfa_token"] not in str(row)


def test_a_wrong_password_learns_nothing_of_factors(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    client = JsonClient(app)

    answer = client.post(
        "/api/v1/auth/login", json={"username": "robin", "password": "wrong-password-1"}
    )

    assert problem(answer) == (401, "invalid_credentials")
    assert "methods" not in answer.get_json()


def test_a_suspended_user_gets_no_token(
    app: Flask, make_user: MakeUser, log_in: LogIn, robin: MadeUser, phone: App
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    assert boss.post(f"/api/v1/users/{robin.id}/suspend").status_code == 200

    assert problem(first_step(app, robin)) == (403, "account_suspended")


def test_a_password_is_rehashed_at_the_first_step(
    app: Flask, make_app: Callable[..., Flask], robin: MadeUser, phone: App
) -> None:
    stronger = make_app(PASSWORD_HASH_ROUNDS="5")

    assert problem(first_step(stronger, robin)) == (403, "mfa_required")

    with app.app_context(), reading() as connection:
        stored = connection.scalar(select(users.c.password_hash))
    assert "$2b$05$" in str(stored)


# The second step


@pytest.mark.parametrize("remember_me", [True, False])
def test_a_code_completes_the_sign_in(
    app: Flask, robin: MadeUser, phone: App, remember_me: bool
) -> None:
    token = mfa_token(app, robin, remember_me=remember_me)

    answer = second_step(app, token, phone.code())

    assert answer.status_code == 200
    body = answer.get_json()
    assert body["user"]["id"] == robin.id
    assert "recovery_codes_left" not in body
    days = body["refresh_expires_in"] / 86400
    assert (29 < days <= 30) if remember_me else (6 < days <= 7)
    me = JsonClient(app, token=body["access_token"]).get("/api/v1/auth/me").get_json()
    assert (me["acr"], sorted(me["amr"])) == ("aal2", ["mfa", "otp", "pwd"])
    assert me["last_login_at"] == me["authenticated_at"]
    (row,) = [r for r in audit_rows(app, action="auth.login") if r.details["step"] == "mfa"]
    assert str(row.session_id) == body["session_id"]
    assert row.details == {
        "method": "password",
        "step": "mfa",
        "factor": "totp",
        "acr": "aal2",
        "amr": ["pwd", "otp", "mfa"],
    }
    created = events(app, type_="session.created")[-1].data
    assert (created["acr"], created["amr"]) == ("aal2", ["mfa", "otp", "pwd"])


def test_a_recovery_code_completes_the_sign_in(
    app: Flask, robin: MadeUser, phone: App, mailbox: Mailbox
) -> None:
    answer = second_step(app, mfa_token(app, robin), phone.recovery_codes[0])

    assert answer.status_code == 200
    assert answer.get_json()["recovery_codes_left"] == 9
    client = JsonClient(app, token=answer.get_json()["access_token"])
    me = client.get("/api/v1/auth/me").get_json()
    assert (me["acr"], sorted(me["amr"])) == ("aal2", ["mfa", "pwd", "recovery"])
    # This session is fresh: who has lost the app can add another one, and remove the old.
    assert client.post(f"{MFA}/totp").status_code == 201
    assert client.delete(f"{MFA}/{phone.id}").status_code == 204
    (row,) = audit_rows(app, action="mfa.recovery_code_used")
    assert row.details == {"left": 9}
    assert "9 codes are left" in str(mailbox.deliver()[1])


def test_a_recovery_code_is_taken_as_people_type_it(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    first, second, third, fourth = phone.recovery_codes[:4]
    confusable = fourth.replace("0", "O").replace("1", "l")

    typed = [first.upper(), second.replace("-", ""), f"  {third.replace('-', ' ')} ", confusable]

    assert [second_step(app, mfa_token(app, robin), code).status_code for code in typed] == [
        200
    ] * 4


def test_the_code_of_an_app_is_taken_with_blanks(app: Flask, robin: MadeUser, phone: App) -> None:
    code = phone.code()

    assert second_step(app, mfa_token(app, robin), f" {code[:3]} {code[3:]}").status_code == 200


def test_each_of_several_apps_signs_in(app: Flask, robin: MadeUser, phone: App) -> None:
    tablet = add_app(phone.client, phone.clock)
    begin_step(phone.clock)  # type: ignore[arg-type]

    codes = [phone.code(), tablet.code()]

    assert [second_step(app, mfa_token(app, robin), code).status_code for code in codes] == [
        200,
        200,
    ]


def test_both_kinds_of_code_work_in_any_order(app: Flask, robin: MadeUser, phone: App) -> None:
    codes = [phone.recovery_codes[0], phone.code(), phone.recovery_codes[1]]

    assert [second_step(app, mfa_token(app, robin), code).status_code for code in codes] == [
        200
    ] * 3


def test_the_last_recovery_code_signs_in_and_the_mail_says_so(
    app: Flask, robin: MadeUser, phone: App, mailbox: Mailbox
) -> None:
    """In other implementations the last code was used without a notice."""
    left = [
        second_step(app, mfa_token(app, robin), code).get_json()["recovery_codes_left"]
        for code in phone.recovery_codes
    ]

    assert left == list(range(9, -1, -1))
    assert "None is left" in str(mailbox.deliver()[-1])
    assert first_step(app, robin).get_json()["methods"] == ["totp"]


# A code is accepted once


def test_a_code_is_accepted_once(app: Flask, robin: MadeUser, phone: App) -> None:
    """Other implementations accepted a code any number of times while it was valid."""
    first, second = mfa_token(app, robin), mfa_token(app, robin)
    code = phone.code()

    assert second_step(app, first, code).status_code == 200
    assert problem(second_step(app, second, code)) == INVALID_CODE


def test_the_code_that_confirmed_an_app_does_not_sign_in(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    begin_step(clock)
    added = add_app(log_in(robin), clock)

    assert problem(second_step(app, mfa_token(app, robin), added.code())) == INVALID_CODE
    assert second_step(app, mfa_token(app, robin), added.code(1)).status_code == 200


def test_an_older_code_is_not_accepted_after_a_newer_one(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    now, next_ = phone.code(), phone.code(1)

    assert second_step(app, mfa_token(app, robin), next_).status_code == 200
    assert problem(second_step(app, mfa_token(app, robin), now)) == INVALID_CODE


def test_codes_of_the_steps_around_now_are_accepted(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    added = add_app(log_in(robin), clock)
    outcomes = {}
    clock.advance(minutes=5)
    for steps in (-2, -1, 0, 1, 2):
        begin_step(clock)
        clock.advance(minutes=5)
        begin_step(clock)
        outcomes[steps] = second_step(app, mfa_token(app, robin), added.code(steps)).status_code

    assert outcomes == {-2: 401, -1: 200, 0: 200, 1: 200, 2: 401}


def test_three_codes_in_rising_order_are_accepted_at_once(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    added = add_app(log_in(robin), clock)
    clock.advance(minutes=5)
    begin_step(clock)

    codes = [added.code(-1), added.code(), added.code(1)]

    assert [second_step(app, mfa_token(app, robin), code).status_code for code in codes] == [
        200
    ] * 3


def test_a_recovery_code_is_accepted_once(app: Flask, robin: MadeUser, phone: App) -> None:
    code = phone.recovery_codes[0]

    assert second_step(app, mfa_token(app, robin), code).status_code == 200
    assert problem(second_step(app, mfa_token(app, robin), code)) == INVALID_CODE


# What is refused


def test_refused_codes_get_the_same_answer_to_the_byte(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    """ "This code was used already" would reveal to a thief that it was correct."""
    used_code, used_recovery_code = phone.code(), phone.recovery_codes[0]
    for code in (used_code, used_recovery_code):
        assert second_step(app, mfa_token(app, robin), code).status_code == 200
    refused = [
        wrong_code(phone.secret, phone.clock),
        used_code,
        used_recovery_code,
        "0000-0000-0000-0000",
        "１２３４５６",
        "12345",
        "1234567",
        "uuuu-uuuu-uuuu-uuuu",
        "ß",
    ]
    answers = []

    for number, code in enumerate(refused):
        if number % 4 == 0:
            clear_wrong_codes(app, robin)
            token = mfa_token(app, robin)
        answers.append(
            JsonClient(app).post(
                SECOND_STEP,
                json={"mfa_token": token, "code": code},
                headers={"X-Correlation-ID": "the-same"},
            )
        )

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.data for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    reasons = [
        row.details["reason"]
        for row in audit_rows(app, action="auth.login")
        if row.outcome == "failure"
    ]
    assert reasons[:4] == ["wrong_code", "reused_code", "reused_code", "wrong_code"]


def clear_wrong_codes(app: Flask, user: MadeUser) -> None:
    assert app.test_cli_runner().invoke(args=["users", "unlock", user.username]).exit_code == 0


def test_the_challenge_does_not_blame_a_token_that_is_sent_along(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    body = {"mfa_token": mfa_token(app, robin), "code": "000"}

    answer = phone.client.post(SECOND_STEP, json=body)

    assert problem(answer) == INVALID_CODE
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert phone.client.get("/api/v1/auth/me").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mfa_token": "x"},
        {"code": "123456"},
        {"mfa_token": "", "code": "123456"},
        {"mfa_token": "x", "code": ""},
        {"mfa_token": "x", "code": "   "},
        {"mfa_token": "x" * 513, "code": "123456"},
        {"mfa_token": "x", "code": "1" * 65},
        {"mfa_token": "x", "code": 123456},
        {"mfa_token": "x", "code": "123\u0007456"},
        {"mfa_token": "x\u0000", "code": "123456"},
        {"mfa_token": "x", "code": "123456", "remember_me": True},
    ],
)
def test_a_malformed_request_comes_before_everything_else(client: JsonClient, body: Any) -> None:
    assert problem(client.post(SECOND_STEP, json=body)) == (422, "validation_failed")


def test_a_code_and_a_token_of_different_users_do_not_fit(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    clock: ManualClock,
) -> None:
    marian = make_user("marian")
    theirs = add_app(log_in(marian), clock)
    begin_step(clock)

    answers = [
        second_step(app, mfa_token(app, robin), theirs.code()),
        second_step(app, mfa_token(app, robin), theirs.recovery_codes[0]),
    ]

    assert [problem(answer) for answer in answers] == [INVALID_CODE] * 2


def test_nothing_a_client_sends_makes_the_second_step_go_away(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    """No "trusted device": no cookie or header of a complete sign-in replaces a code."""
    signed_in = log_in_with_code(app, robin, phone.code())
    body = {"username": "robin", "password": PASSWORD}

    with app.test_client(use_cookies=True) as browser:
        for _ in range(2):
            answer = browser.post(
                "/api/v1/auth/login",
                json=body,
                headers={
                    "Authorization": f"Bearer {signed_in.access_token}",
                    "X-Trusted-Device": "true",
                },
            )
            assert problem(answer) == (403, "mfa_required")
            assert "Set-Cookie" not in answer.headers


# The token of the second step


def test_a_token_is_good_for_one_success(app: Flask, robin: MadeUser, phone: App) -> None:
    token = mfa_token(app, robin)

    assert second_step(app, token, phone.code()).status_code == 200
    assert problem(second_step(app, token, phone.recovery_codes[0])) == TOKEN_INVALID


def test_the_fifth_failure_ends_a_token(
    make_app: Callable[..., Flask], robin: MadeUser, phone: App
) -> None:
    app = make_app(LOCKOUT_THRESHOLD="50")
    token = mfa_token(app, robin)

    failures = [problem(second_step(app, token, "nonsense")) for _ in range(5)]

    assert failures == [INVALID_CODE] * 5
    assert problem(second_step(app, token, phone.code())) == TOKEN_INVALID
    assert second_step(app, mfa_token(app, robin), phone.code()).status_code == 200


def test_a_token_expires(
    make_app: Callable[..., Flask], robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    app = make_app(MFA_TOKEN_SECONDS="5")
    token = mfa_token(app, robin)
    clock.advance(seconds=6)

    assert problem(second_step(app, token, phone.code())) == TOKEN_INVALID


@pytest.mark.parametrize("token", ["x", "x" * 512, "ä", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
def test_an_unknown_token_is_like_an_expired_one(client: JsonClient, token: str) -> None:
    answer = second_step(client.app, token, "123456")

    assert problem(answer) == TOKEN_INVALID
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_of_the_second_step_authorizes_nothing(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    token = mfa_token(app, robin)

    answer = JsonClient(app, token=token).get("/api/v1/auth/me")

    assert problem(answer) == (401, "token_invalid")


def test_an_eleventh_open_token_ends_the_oldest(app: Flask, robin: MadeUser, phone: App) -> None:
    tokens = [mfa_token(app, robin) for _ in range(11)]

    assert problem(second_step(app, tokens[0], phone.code())) == TOKEN_INVALID
    assert second_step(app, tokens[1], phone.code()).status_code == 200


def change_password(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert phone.client.post("/api/v1/auth/change-password", json=body).status_code == 200


def reset_password(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    JsonClient(app).post("/api/v1/auth/reset-password", json={"email": robin.email})
    body = {"token": Mailbox(app).token(), "new_password": NEW_PASSWORD}
    answer = JsonClient(app).post("/api/v1/auth/reset-password/confirm", json=body)
    assert answer.status_code == 204


def suspend(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    assert boss.post(f"/api/v1/users/{robin.id}/suspend").status_code == 200
    assert boss.post(f"/api/v1/users/{robin.id}/activate").status_code == 200


def suspend_by_command(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    for action in ("suspend", "activate"):
        result = app.test_cli_runner().invoke(args=["users", action, "robin"])
        assert result.exit_code == 0, result.output


def suspend_in_bulk(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    for action in ("suspend", "activate"):
        body = {"action": action, "user_ids": [robin.id]}
        assert boss.post("/api/v1/users/bulk", json=body).get_json()["failed"] == 0


def delete(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    assert boss.delete(f"/api/v1/users/{robin.id}").status_code == 204


def delete_oneself(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    body = {"current_password": robin.password}
    assert phone.client.delete("/api/v1/users/me", json=body).status_code == 204


def force_reset(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    assert boss.post(f"/api/v1/users/{robin.id}/reset-password").status_code == 202


def end_all_sessions(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    assert boss.delete(f"/api/v1/users/{robin.id}/sessions").status_code == 200


def log_out_everywhere(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    answer = phone.client.post("/api/v1/auth/logout", json={"all_sessions": True})
    assert answer.status_code == 204


def revoke_of_user(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    result = app.test_cli_runner().invoke(args=["sessions", "revoke", "robin"])
    assert result.exit_code == 0, result.output


def revoke_all(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    result = app.test_cli_runner().invoke(args=["sessions", "revoke", "--all", "--yes"])
    assert result.exit_code == 0, result.output


def set_password(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    result = app.test_cli_runner().invoke(
        args=["users", "set-password", "robin", "--password-stdin"], input=NEW_PASSWORD + "\n"
    )
    assert result.exit_code == 0, result.output


def reset_mfa(app: Flask, robin: MadeUser, phone: App, boss: JsonClient) -> None:
    assert boss.delete(f"/api/v1/users/{robin.id}/mfa").status_code == 204


@pytest.mark.parametrize(
    "event",
    [
        change_password,
        reset_password,
        suspend,
        suspend_by_command,
        suspend_in_bulk,
        delete,
        delete_oneself,
        force_reset,
        end_all_sessions,
        log_out_everywhere,
        revoke_of_user,
        revoke_all,
        set_password,
        reset_mfa,
    ],
)
def test_what_ends_all_sessions_ends_open_tokens(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    event: Callable[..., None],
) -> None:
    token = mfa_token(app, robin)
    boss = log_in(make_user("boss", roles=["admin"]))

    event(app, robin, phone, boss)

    assert problem(second_step(app, token, phone.recovery_codes[0])) == TOKEN_INVALID


def test_ending_the_other_sessions_leaves_open_tokens_alone(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    token = mfa_token(app, robin)

    assert phone.client.delete("/api/v1/auth/sessions").status_code == 200

    assert second_step(app, token, phone.code()).status_code == 200


def test_a_token_of_a_suspended_user_is_like_an_expired_one(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    token = mfa_token(app, robin)
    boss.post(f"/api/v1/users/{robin.id}/suspend")
    headers = {"X-Correlation-ID": "the-same"}

    def answer(token: str) -> bytes:
        body = {"mfa_token": token, "code": phone.recovery_codes[0]}
        shown: bytes = JsonClient(app).post(SECOND_STEP, json=body, headers=headers).data
        return shown

    assert answer(token) == answer("unknown")


@pytest.mark.thorough
def test_a_reset_of_the_password_leaves_the_factors_alone(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    """A link in a mail replaces the password, never a factor."""
    JsonClient(app).post("/api/v1/auth/reset-password", json={"email": robin.email})
    body = {"token": Mailbox(app).token(), "new_password": NEW_PASSWORD}

    reset = JsonClient(app).post("/api/v1/auth/reset-password/confirm", json=body)

    assert reset.status_code == 204
    credentials = {"username": "robin", "password": NEW_PASSWORD}
    answer = JsonClient(app).post("/api/v1/auth/login", json=credentials)
    assert problem(answer) == (403, "mfa_required")
    assert second_step(app, answer.get_json()["mfa_token"], phone.code()).status_code == 200


def test_the_second_step_has_the_limit_of_log_ins_by_itself(
    make_app: Callable[..., Flask], robin: MadeUser, phone: App
) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_LOGIN="3/minute")

    answers = [second_step(app, "x", "123456").status_code for _ in range(4)]

    assert answers == [401] * 3 + [429]
    assert first_step(app, robin).status_code == 403


def test_mails_contain_neither_codes_nor_links(
    app: Flask, robin: MadeUser, phone: App, mailbox: Mailbox
) -> None:
    second_step(app, mfa_token(app, robin), phone.recovery_codes[0])

    texts = [mail.as_string() for mail in mailbox.deliver()]

    assert len(texts) == len(mails(app)) == 2
    assert not any("http" in text.split("\n\n", 1)[1] for text in texts)
    assert not any(code in text for text in texts for code in phone.recovery_codes)


def test_codes_are_judged_by_the_clock_of_the_server(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    stale = phone.code()
    clock.advance(minutes=3)

    assert problem(second_step(app, mfa_token(app, robin), stale)) == INVALID_CODE
    assert outcome(second_step(app, mfa_token(app, robin), code_of(phone.secret, clock))) == (
        200,
        None,
    )
