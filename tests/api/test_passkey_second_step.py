"""A passkey as the second step of a sign-in, and for a step-up."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.authenticator import UV, Authenticator, Wrong, base64url
from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.metrics import sample
from tests.support.passkeys import (
    ADD,
    SECOND_STEP,
    SIGN_IN,
    STEP_UP,
    add_passkey,
    begin_sign_in,
    options,
)
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.infrastructure.database import transaction

pytestmark = pytest.mark.thorough

VERIFY = "/api/v1/auth/verify"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


@pytest.fixture
def own(robin: MadeUser, log_in: LogIn, authenticator: Authenticator) -> SignedInClient:
    """Return Robin's client after a passkey was added."""
    return add_passkey(log_in(robin), authenticator)[0]


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json().get("code", "")


def second_step(
    client: JsonClient, token: str, authenticator: Authenticator, wrong: Wrong | None = None
) -> Any:
    given = options(client, SECOND_STEP, {"mfa_token": token})
    credential = authenticator.get(given, wrong or Wrong())
    return client.post(SECOND_STEP, json={"mfa_token": token, "credential": credential})


def step_up(client: JsonClient, authenticator: Authenticator, wrong: Wrong | None = None) -> Any:
    credential = authenticator.get(options(client, STEP_UP), wrong or Wrong())
    return client.post(STEP_UP, json={"credential": credential})


# The second step


@pytest.mark.usefixtures("own")
def test_a_passkey_completes_a_sign_in(
    app: Flask, client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)
    given = options(client, SECOND_STEP, {"mfa_token": token})

    answer = second_step(client, token, authenticator)

    assert answer.status_code == 200
    assert given["userVerification"] == "required"
    assert given["allowCredentials"] == [
        {
            "id": base64url(authenticator.passkeys[0].id),
            "type": "public-key",
            "transports": ["hybrid", "internal"],
        }
    ]
    verified = SignedInClient(app, answer.get_json()).get(VERIFY).get_json()
    assert verified["acr"] == "aal2"
    assert set(verified["amr"]) == {"pwd", "pop", "user", "mfa"}
    row = audit_rows(app, action="auth.login")[-1]
    assert (row.outcome, row.target_id) == ("success", robin.id)
    assert (row.details["method"], row.details["step"], row.details["factor"]) == (
        "password",
        "mfa",
        "passkey",
    )
    assert row.details["acr"] == "aal2"
    assert code_of(second_step_with(client, token, {})) == (401, "mfa_token_invalid")


def second_step_with(client: JsonClient, token: str, credential: Any) -> Any:
    complete = {
        "id": "AA",
        "rawId": "AA",
        "type": "public-key",
        "response": {"clientDataJSON": "AA", "authenticatorData": "AA", "signature": "AA"},
        **credential,
    }
    return client.post(SECOND_STEP, json={"mfa_token": token, "credential": complete})


@pytest.mark.usefixtures("own")
def test_a_second_step_needs_no_user_handle(
    client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)

    answer = second_step(client, token, authenticator, Wrong(without_user_handle=True))

    assert answer.status_code == 200


@pytest.mark.usefixtures("own")
def test_failed_passkeys_use_the_tries_of_the_token_and_no_counter(
    app: Flask, client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)
    given = options(client, SECOND_STEP, {"mfa_token": token})

    failed = [
        second_step(client, token, authenticator, Wrong(flags=UV)),
        second_step(client, token, authenticator, Wrong(user_handle=bytes(32))),
        second_step(client, token, authenticator, Wrong(signature=b"no")),
        second_step_with(client, token, {}),
        second_step_with(client, token, {"type": "password"}),
    ]
    right = client.post(
        SECOND_STEP, json={"mfa_token": token, "credential": authenticator.get(given)}
    )

    assert [code_of(answer) for answer in failed] == [(401, "passkey_invalid")] * 5
    assert {answer.headers["WWW-Authenticate"] for answer in failed} == {"Bearer"}
    assert code_of(right) == (401, "mfa_token_invalid")
    reasons = [row.details["reason"] for row in audit_rows(app, action="auth.login")[-5:]]
    assert reasons == ["user_verification", "user_handle", "signature", "malformed", "malformed"]
    # No counter has moved: a code is checked.
    token = begin_sign_in(client, "robin", robin.password)
    answer = client.post(SECOND_STEP, json={"mfa_token": token, "code": "000000"})
    assert code_of(answer) == (401, "invalid_code")


@pytest.mark.usefixtures("own")
def test_a_passkey_completes_a_sign_in_while_codes_are_locked(
    client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)
    for _ in range(5):
        client.post(SECOND_STEP, json={"mfa_token": token, "code": "000000"})
    token = begin_sign_in(client, "robin", robin.password)
    locked = client.post(SECOND_STEP, json={"mfa_token": token, "code": "000000"})

    answer = second_step(client, token, authenticator)

    assert code_of(locked) == (429, "too_many_attempts")
    assert answer.status_code == 200
    token = begin_sign_in(client, "robin", robin.password)
    still = client.post(SECOND_STEP, json={"mfa_token": token, "code": "000000"})
    assert code_of(still) == (429, "too_many_attempts")


@pytest.mark.usefixtures("own")
def test_the_passkey_of_another_user_completes_nothing(
    client: JsonClient,
    robin: MadeUser,
    authenticator: Authenticator,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    marian, other = make_user("marian"), Authenticator()
    add_passkey(log_in(marian), other)
    token = begin_sign_in(client, "robin", robin.password)
    given = options(client, SECOND_STEP, {"mfa_token": token})

    foreign = other.get(given, passkey=other.passkeys[0])
    answer = client.post(SECOND_STEP, json={"mfa_token": token, "credential": foreign})
    right = second_step(client, token, authenticator)

    assert code_of(answer) == (401, "passkey_invalid")
    assert right.status_code == 200


@pytest.mark.usefixtures("own")
def test_a_challenge_completes_the_sign_in_that_it_was_issued_for(
    client: JsonClient, own: SignedInClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    first, second = (begin_sign_in(client, "robin", robin.password) for _ in range(2))
    others = [
        options(client, SECOND_STEP, {"mfa_token": first}),
        options(client, SIGN_IN),
        options(own, STEP_UP),
        {"challenge": options(own, ADD)["challenge"], "allowCredentials": []},
    ]

    answers = [
        client.post(SECOND_STEP, json={"mfa_token": second, "credential": authenticator.get(given)})
        for given in others
    ]

    assert [code_of(answer) for answer in answers] == [(401, "passkey_invalid")] * 4
    assert second_step(client, second, authenticator).status_code == 200


@pytest.mark.usefixtures("own")
def test_options_use_no_try_of_the_token(
    client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)

    for _ in range(20):
        options(client, SECOND_STEP, {"mfa_token": token})

    assert second_step(client, token, authenticator).status_code == 200


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"mfa_token": "unknown"}, (401, "mfa_token_invalid")),
        ({"mfa_token": "x" * 513}, (422, "validation_failed")),
        ({"mfa_token": ""}, (422, "validation_failed")),
        ({}, (422, "validation_failed")),
    ],
)
def test_options_need_a_token(client: JsonClient, body: object, expected: object) -> None:
    assert code_of(client.post(f"{SECOND_STEP}/options", json=body)) == expected


@pytest.mark.usefixtures("own")
def test_a_token_takes_a_code_or_a_credential(
    client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = begin_sign_in(client, "robin", robin.password)
    credential = authenticator.get(options(client, SECOND_STEP, {"mfa_token": token}))

    answers = [
        client.post(
            SECOND_STEP, json={"mfa_token": token, "code": "000000", "credential": credential}
        ),
        client.post(SECOND_STEP, json={"mfa_token": token}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert second_step(client, token, authenticator).status_code == 200


def test_passkeys_of_another_rp_id_are_no_method(
    make_app: Callable[..., Flask], own: SignedInClient, robin: MadeUser
) -> None:
    """A passkey of the former domain is in no browser at the new one."""
    client = JsonClient(make_app(PUBLIC_BASE_URL="https://id.example.com"))
    first = client.post(
        "/api/v1/auth/login", json={"username": "robin", "password": robin.password}
    ).get_json()

    answer = client.post(f"{SECOND_STEP}/options", json={"mfa_token": first["mfa_token"]})

    assert first["methods"] == ["recovery_code"]
    assert code_of(answer) == (409, "mfa_method_unavailable")


# Step-up


def test_a_step_up_by_passkey_renews_the_session(
    app: Flask,
    own: SignedInClient,
    authenticator: Authenticator,
    clock: ManualClock,
) -> None:
    clock.advance(minutes=20)
    assert own.post(f"{ADD}/options").get_json()["code"] == "insufficient_user_authentication"

    answer = step_up(own, authenticator)

    renewed = SignedInClient(app, answer.get_json())
    assert answer.status_code == 200
    assert renewed.session_id == own.session_id
    assert renewed.post(f"{ADD}/options").status_code == 200
    assert code_of(own.get(VERIFY)) == (401, "token_revoked")
    row = audit_rows(app, action="auth.step_up")[-1]
    assert (row.outcome, row.target_id) == ("success", own.session_id)
    assert (row.details["factor"], row.details["acr"]) == ("passkey", "aal2")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Wrong(flags=UV), "user_verification"),
        (Wrong(user_handle=bytes(32)), "user_handle"),
        (Wrong(client_data={"crossOrigin": True}), "cross_origin"),
    ],
)
def test_a_failed_step_up_leaves_the_session_as_it_is(
    app: Flask, own: SignedInClient, authenticator: Authenticator, wrong: Wrong, reason: str
) -> None:
    answer = step_up(own, authenticator, wrong)

    assert code_of(answer) == (401, "passkey_invalid")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert own.get(VERIFY).status_code == 200
    row = audit_rows(app, action="auth.step_up")[-1]
    assert (row.outcome, row.details["reason"]) == ("failure", reason)


def test_a_challenge_steps_up_the_session_that_it_was_issued_for(
    client: JsonClient, own: SignedInClient, authenticator: Authenticator
) -> None:
    signed_in = client.post(
        SIGN_IN, json={"credential": authenticator.get(options(client, SIGN_IN))}
    )
    other = SignedInClient(own.app, signed_in.get_json())
    others = [
        options(other, STEP_UP),
        options(client, SIGN_IN),
        {"challenge": options(own, ADD)["challenge"], "allowCredentials": []},
    ]

    answers = [own.post(STEP_UP, json={"credential": authenticator.get(given)}) for given in others]

    assert [code_of(answer) for answer in answers] == [(401, "passkey_invalid")] * 3
    assert step_up(own, authenticator).status_code == 200


def test_an_assertion_steps_up_once(
    app: Flask, own: SignedInClient, authenticator: Authenticator
) -> None:
    credential = authenticator.get(options(own, STEP_UP))
    first = own.post(STEP_UP, json={"credential": credential})

    second = SignedInClient(app, first.get_json()).post(STEP_UP, json={"credential": credential})

    assert first.status_code == 200
    assert code_of(second) == (401, "passkey_invalid")


def test_options_of_a_step_up_need_a_passkey(make_user: MakeUser, log_in: LogIn) -> None:
    answer = log_in(make_user("marian")).post(f"{STEP_UP}/options")

    assert code_of(answer) == (409, "mfa_method_unavailable")


def test_a_user_who_must_change_the_password_can_step_up(
    app: Flask, own: SignedInClient, authenticator: Authenticator
) -> None:
    with app.app_context(), transaction() as session:
        session.execute(text("UPDATE users SET must_change_password = true"))

    assert step_up(own, authenticator).status_code == 200


def test_passkeys_of_second_steps_are_counted(
    client: JsonClient, own: SignedInClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    labels = [{"method": "passkey", "outcome": outcome} for outcome in ("success", "failure")]
    before = [sample(client, "auth_mfa_total", **label) for label in labels]

    second_step(client, begin_sign_in(client, "robin", robin.password), authenticator)
    step_up(own, authenticator, Wrong(flags=UV))

    after = [sample(client, "auth_mfa_total", **label) for label in labels]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]
