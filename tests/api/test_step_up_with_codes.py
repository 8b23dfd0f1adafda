"""Step-up with the code of an app or a recovery code."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.second_factors import (
    MFA,
    App,
    add_app,
    begin_step,
    first_step,
    mfa_token,
    second_step,
)
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

pytestmark = pytest.mark.thorough

STEP_UP = "/api/v1/auth/step-up"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    """Return an app of Robin whose session is not fresh any more."""
    added = add_app(log_in(robin), clock)
    clock.advance(seconds=901)
    begin_step(clock)
    return added


def problem(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.get_json().get("code")


def step_up(client: JsonClient, code: str) -> Any:
    return client.post(STEP_UP, json={"code": code})


@pytest.mark.parametrize("kind", ["totp", "recovery_code"])
def test_a_code_makes_the_session_fresh(app: Flask, phone: App, kind: str) -> None:
    assert phone.client.post(f"{MFA}/recovery-codes").status_code == 401
    code = phone.code() if kind == "totp" else phone.recovery_codes[0]

    answer = step_up(phone.client, code)

    assert answer.status_code == 200
    renewed = SignedInClient(app, answer.get_json())
    assert renewed.session_id == phone.client.session_id
    me = renewed.get("/api/v1/auth/me").get_json()
    assert me["acr"] == "aal2"
    expected = {"pwd", "otp", "mfa"} | ({"recovery"} if kind == "recovery_code" else set())
    assert set(me["amr"]) == expected
    assert renewed.get(MFA).get_json()["recovery_codes_left"] == (
        9 if expected & {"recovery"} else 10
    )
    assert renewed.post(f"{MFA}/recovery-codes").status_code == 201
    (row,) = audit_rows(app, action="auth.step_up")
    assert (row.outcome, row.details["factor"]) == ("success", kind)


def test_the_former_refresh_token_becomes_none_of_the_new_level(
    app: Flask, client: JsonClient, phone: App
) -> None:
    """Elsewhere the grace of a refresh made an old token one of the new level."""
    renewed = SignedInClient(app, step_up(phone.client, phone.code()).get_json())

    former = client.post("/api/v1/auth/refresh", json={"refresh_token": phone.client.refresh_token})

    assert problem(former) == (401, "token_revoked")
    assert renewed.get("/api/v1/auth/me").status_code == 200
    assert events(app, type_="session.reuse_detected") == []


def test_a_code_is_used_up_here_and_at_the_second_step(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    code = phone.code()
    renewed = SignedInClient(app, step_up(phone.client, code).get_json())

    assert problem(second_step(app, mfa_token(app, robin), code)) == (401, "invalid_code")
    assert problem(step_up(renewed, code)) == (401, "invalid_code")
    assert renewed.get("/api/v1/auth/me").status_code == 200


def test_a_wrong_code_says_nothing_against_the_token(app: Flask, phone: App) -> None:
    answer = step_up(phone.client, "wrong")

    assert problem(answer) == (401, "invalid_code")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert phone.client.get("/api/v1/auth/me").status_code == 200
    (row,) = audit_rows(app, action="auth.step_up")
    assert row.outcome == "failure"
    assert row.details == {"factor": "recovery_code", "reason": "wrong_code"}


def test_wrong_codes_count_together_with_those_of_the_second_step(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    token = mfa_token(app, robin)
    failures = [step_up(phone.client, "wrong") for _ in range(3)]
    failures += [second_step(app, token, "wrong") for _ in range(2)]

    assert {problem(answer) for answer in failures} == {(401, "invalid_code")}
    locked = step_up(phone.client, phone.code())
    assert problem(locked) == (429, "too_many_attempts")
    assert int(locked.headers["Retry-After"]) <= 60
    assert phone.client.get("/api/v1/auth/me").status_code == 200
    clock.advance(seconds=61)
    assert step_up(phone.client, phone.code()).status_code == 200
    assert first_step(app, robin).status_code == 403


def test_a_right_code_clears_the_counter(app: Flask, phone: App) -> None:
    for _ in range(4):
        step_up(phone.client, "wrong")

    renewed = SignedInClient(app, step_up(phone.client, phone.code()).get_json())

    assert [problem(step_up(renewed, "wrong")) for _ in range(4)] == [(401, "invalid_code")] * 4


def test_without_a_factor_there_is_no_code(robin: MadeUser, log_in: LogIn) -> None:
    assert problem(step_up(log_in(robin), "123456")) == (409, "mfa_not_enabled")


def test_with_a_factor_the_password_is_not_enough(phone: App) -> None:
    answer = phone.client.post(STEP_UP, json={"password": PASSWORD})

    assert problem(answer) == (403, "mfa_required")
    assert answer.get_json()["methods"] == ["totp", "recovery_code"]
    assert "mfa_token" not in answer.get_json()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": ""},
        {"code": "1" * 65},
        {"code": 123456},
        {"password": PASSWORD, "code": "123456"},
        {"password": "", "code": "123456"},
    ],
)
def test_exactly_one_proof_is_sent(phone: App, body: Any) -> None:
    assert problem(phone.client.post(STEP_UP, json=body)) == (422, "validation_failed")


def test_without_the_key_of_the_secret_no_try_is_used(
    make_app: Callable[..., Flask], phone: App
) -> None:
    lost = make_app(ENCRYPTION_KEY="tests-encrypt-with-this-key-from-now-on-3Kd8")
    client = JsonClient(lost, token=phone.client.access_token)

    refused = [problem(step_up(client, phone.code())) for _ in range(7)]

    assert refused == [(503, "service_unavailable")] * 7
    assert step_up(client, phone.recovery_codes[0]).status_code == 200


def test_of_many_with_one_token_one_gets_a_pair_and_the_others_use_no_code(
    make_app: Callable[..., Flask], phone: App
) -> None:
    app = make_app(LOCKOUT_THRESHOLD="50")
    client = JsonClient(app, token=phone.client.access_token)
    barrier = Barrier(10)

    def run(code: str) -> Any:
        barrier.wait(60)
        return step_up(client, code)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(run, phone.recovery_codes))

    winners = [answer for answer in answers if answer.status_code == 200]
    assert len(winners) == 1
    others = {problem(answer) for answer in answers if answer not in winners}
    assert others == {(401, "token_revoked")}
    renewed = SignedInClient(app, winners[0].get_json())
    assert renewed.get(MFA).get_json()["recovery_codes_left"] == 9
