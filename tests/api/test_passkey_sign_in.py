"""Sign-in with a passkey alone: what is accepted, refused and recorded."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.authenticator import (
    BE,
    BS,
    EDDSA,
    RS256,
    UP,
    UV,
    Authenticator,
    Json,
    Wrong,
    base64url,
)
from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.metrics import sample
from tests.support.passkeys import (
    SIGN_IN,
    STEP_UP,
    add_passkey,
    options,
    try_to_sign_in,
)
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import UserStatus
from userapi.clock import ManualClock
from userapi.infrastructure.database import Base, db, reading, transaction
from userapi.wiring.services import Services

VERIFY = "/api/v1/auth/verify"
LOG_IN = "/api/v1/auth/login"


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


def change(app: Flask, statement: str) -> None:
    with app.app_context(), transaction() as session:
        session.execute(text(statement))


def count(app: Flask, table: str) -> int:
    with app.app_context(), reading() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def rows_of_all_tables(app: Flask) -> dict[str, int]:
    return {table: count(app, table) for table in Base.metadata.tables}


@pytest.mark.usefixtures("own")
def test_a_user_signs_in_with_a_passkey_alone(
    app: Flask, client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    answer = try_to_sign_in(client, authenticator)

    body = answer.get_json()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert body["user"]["id"] == robin.id
    assert body["user"]["mfa_enabled"] is True
    assert body["user"]["last_login_at"] is not None
    assert "recovery_codes_left" not in body
    verified = SignedInClient(app, body).get(VERIFY).get_json()
    assert verified["acr"] == "aal2"
    assert set(verified["amr"]) == {"pop", "user", "mfa"}


@pytest.mark.usefixtures("own")
def test_a_sign_in_with_a_passkey_is_recorded(
    app: Flask, client: JsonClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    answer = try_to_sign_in(client, authenticator)

    row = audit_rows(app, action="auth.login")[-1]
    assert (row.outcome, row.target_id, str(row.actor_id)) == ("success", robin.id, robin.id)
    assert str(row.session_id) == answer.get_json()["session_id"]
    assert row.details.pop("amr") and row.details == {
        "method": "passkey",
        "step": "passkey",
        "factor": "passkey",
        "acr": "aal2",
    }
    event = events(app, type_="session.created")[-1]
    assert (event.data["acr"], set(event.data["amr"])) == ("aal2", {"pop", "user", "mfa"})
    last_used = client.as_user(answer.get_json()["access_token"]).get("/api/v1/auth/mfa")
    assert last_used.get_json()["factors"][0]["last_used_at"] is not None


def test_sign_ins_with_passkeys_are_counted(
    own: SignedInClient, authenticator: Authenticator
) -> None:
    counters = {
        "auth_sign_ins_total": {"method": "passkey"},
        "auth_mfa_total": {"method": "passkey", "outcome": "failure"},
    }
    before = [sample(own, name, **labels) for name, labels in counters.items()]

    try_to_sign_in(own, authenticator)
    try_to_sign_in(own, authenticator, Wrong(flags=UV))

    after = [sample(own, name, **labels) for name, labels in counters.items()]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]


def test_options_are_the_same_for_everyone_and_store_nothing(
    app: Flask, client: JsonClient, own: SignedInClient
) -> None:
    before = rows_of_all_tables(app)

    given = [options(caller, SIGN_IN) for caller in (client, own) for _ in range(50)]

    assert rows_of_all_tables(app) == before
    challenges = {entry.pop("challenge") for entry in given}
    assert len(challenges) == 100
    assert (
        given
        == [
            {
                "rpId": "localhost",
                "timeout": 300000,
                "allowCredentials": [],
                "userVerification": "required",
            }
        ]
        * 100
    )


def test_a_flood_of_options_leaves_no_row(app: Flask, services: Services) -> None:
    """HTTP adds nothing that could store a row, and would take most of the time."""
    before = rows_of_all_tables(app)

    with app.app_context():
        given = [services.passkey_sign_in.options() for _ in range(10_000)]

    assert len({each.public_key["challenge"] for each in given}) == 10_000
    assert rows_of_all_tables(app) == before


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("remember_me", "days"), [(False, 7), (True, 30)])
def test_a_sign_in_can_be_remembered(
    client: JsonClient, authenticator: Authenticator, remember_me: bool, days: int
) -> None:
    answer = try_to_sign_in(client, authenticator, remember_me=remember_me)

    assert answer.get_json()["refresh_expires_in"] == days * 24 * 3600


@pytest.mark.parametrize("algorithm", [EDDSA, RS256])
def test_passkeys_of_each_algorithm_sign_in(
    client: JsonClient, robin: MadeUser, log_in: LogIn, algorithm: int
) -> None:
    authenticator = Authenticator(algorithm=algorithm)
    add_passkey(log_in(robin), authenticator)

    assert try_to_sign_in(client, authenticator).status_code == 200


# Checks

WRONG = {
    "type": (Wrong(client_data={"type": "webauthn.create"}), "type"),
    "challenge": (Wrong(client_data={"challenge": base64url(bytes(78))}), "challenge"),
    "origin": (Wrong(client_data={"origin": "https://evil.example"}), "origin"),
    "origin with a slash": (Wrong(client_data={"origin": "http://localhost:8000/"}), "origin"),
    "cross origin": (Wrong(client_data={"crossOrigin": True}), "cross_origin"),
    "top origin": (Wrong(client_data={"topOrigin": "https://evil.example"}), "cross_origin"),
    "RP ID": (Wrong(rp_id="example.com"), "rp_id"),
    "user presence": (Wrong(flags=UP), "user_presence"),
    "user verification": (Wrong(flags=UV), "user_verification"),
    "backup state": (Wrong(flags=BE, extra_flags=BS), "backup_flags"),
    "backup eligibility": (Wrong(flags=BE | BS), "backup_flags"),
    "signature": (Wrong(signature=b"not a signature"), "signature"),
    "user handle": (Wrong(user_handle=bytes(32)), "user_handle"),
    "no user handle": (Wrong(without_user_handle=True), "user_handle"),
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("wrong", "reason"), WRONG.values(), ids=WRONG)
def test_an_assertion_that_fails_a_check_is_refused(
    app: Flask,
    client: JsonClient,
    robin: MadeUser,
    authenticator: Authenticator,
    wrong: Wrong,
    reason: str,
) -> None:
    sessions = count(app, "user_sessions")

    answer = try_to_sign_in(client, authenticator, wrong)

    assert code_of(answer) == (401, "passkey_invalid")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert count(app, "user_sessions") == sessions
    row = audit_rows(app, action="auth.login")[-1]
    assert (row.outcome, row.target_id, row.actor_id) == ("failure", robin.id, None)
    assert row.details == {
        "method": "passkey",
        "step": "passkey",
        "factor": "passkey",
        "reason": reason,
    }


@pytest.mark.usefixtures("own")
def test_every_refusal_but_unknown_is_the_same(
    client: JsonClient, authenticator: Authenticator
) -> None:
    bodies = [
        try_to_sign_in(client, authenticator, wrong).get_json() for wrong, _ in WRONG.values()
    ]

    for body in bodies:
        body.pop("correlation_id")
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.usefixtures("own")
def test_an_assertion_is_used_once(client: JsonClient, authenticator: Authenticator) -> None:
    credential = authenticator.get(options(client, SIGN_IN))

    answers = [client.post(SIGN_IN, json={"credential": credential}) for _ in range(2)]

    assert [code_of(answer) for answer in answers] == [(200, ""), (401, "passkey_invalid")]


@pytest.mark.thorough
@pytest.mark.usefixtures("own")
def test_a_database_that_fails_uses_up_no_challenge(
    app: Flask, client: JsonClient, authenticator: Authenticator
) -> None:
    credential = authenticator.get(options(client, SIGN_IN))

    with app.app_context(), db.engine.begin() as blocking:
        if blocking.dialect.name == "postgresql":  # SQLite is locked by BEGIN alone.
            # The challenge is recorded before the audit row.
            blocking.exec_driver_sql("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        failed = client.post(SIGN_IN, json={"credential": credential})
    answer = client.post(SIGN_IN, json={"credential": credential})

    assert code_of(failed) == (503, "service_unavailable")
    assert answer.status_code == 200


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("wrong", "uses_up"),
    [
        (Wrong(flags=UV), True),
        (Wrong(client_data={"origin": "https://evil.example"}), True),
        (Wrong(user_handle=bytes(32)), True),
        (Wrong(signature=b"not a signature"), False),
    ],
    ids=["user verification", "origin", "user handle", "signature"],
)
def test_a_signed_response_uses_up_its_challenge_whatever_else_is_wrong(
    client: JsonClient, authenticator: Authenticator, wrong: Wrong, uses_up: bool
) -> None:
    given = options(client, SIGN_IN)

    first = client.post(SIGN_IN, json={"credential": authenticator.get(given, wrong)})
    second = client.post(SIGN_IN, json={"credential": authenticator.get(given)})

    assert code_of(first) == (401, "passkey_invalid")
    assert second.status_code == (401 if uses_up else 200)


@pytest.mark.usefixtures("own")
def test_several_options_are_open_at_the_same_time(
    client: JsonClient, authenticator: Authenticator
) -> None:
    older, newer = options(client, SIGN_IN), options(client, SIGN_IN)

    answers = [
        client.post(SIGN_IN, json={"credential": authenticator.get(given)})
        for given in (newer, older)
    ]

    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("seconds", "status"), [(295, 200), (301, 401)])
def test_a_challenge_is_good_for_300_seconds(
    client: JsonClient, authenticator: Authenticator, clock: ManualClock, seconds: int, status: int
) -> None:
    given = options(client, SIGN_IN)
    clock.advance(seconds=seconds)

    answer = client.post(SIGN_IN, json={"credential": authenticator.get(given)})

    assert answer.status_code == status


def test_a_challenge_of_another_purpose_does_not_sign_in(
    client: JsonClient, own: SignedInClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    token = client.post(LOG_IN, json={"username": "robin", "password": robin.password}).get_json()[
        "mfa_token"
    ]
    creation = options(own, "/api/v1/auth/passkeys")
    others = [
        options(own, STEP_UP),
        options(client, "/api/v1/auth/login/mfa", {"mfa_token": token}),
        {"challenge": creation["challenge"], "allowCredentials": []},
    ]

    answers = [
        client.post(SIGN_IN, json={"credential": authenticator.get(given)}) for given in others
    ]

    assert [code_of(answer) for answer in answers] == [(401, "passkey_invalid")] * 3


# Counters


@pytest.mark.usefixtures("own")
def test_the_counter_of_a_synced_passkey_is_not_judged(
    client: JsonClient, authenticator: Authenticator
) -> None:
    answers = [
        try_to_sign_in(client, authenticator, Wrong(counter=counter)) for counter in (9, 3, 0)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize(
    ("counters", "statuses"),
    [((9, 3), (200, 401)), ((9, 9), (200, 401)), ((9, 0), (200, 401)), ((9, 10), (200, 200))],
)
def test_the_counter_of_a_passkey_of_one_device_grows(
    app: Flask,
    client: JsonClient,
    robin: MadeUser,
    log_in: LogIn,
    counters: tuple[int, ...],
    statuses: tuple[int, ...],
) -> None:
    authenticator = Authenticator(synced=False)
    add_passkey(log_in(robin), authenticator)

    answers = [
        try_to_sign_in(client, authenticator, Wrong(counter=counter)) for counter in counters
    ]

    assert tuple(answer.status_code for answer in answers) == statuses
    suspected = audit_rows(app, action="auth.passkey_clone_suspected")
    assert len(suspected) == statuses.count(401)
    for row in suspected:
        assert (row.outcome, row.target_id) == ("denied", robin.id)
        assert audit_rows(app, action="auth.login")[-1].details["reason"] == "counter"


def test_a_passkey_of_one_device_without_a_counter_signs_in(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    authenticator = Authenticator(synced=False)
    add_passkey(log_in(robin), authenticator)
    change(app, "UPDATE passkeys SET sign_count = 0")

    answers = [try_to_sign_in(client, authenticator, Wrong(counter=0)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.usefixtures("own")
def test_the_backup_state_follows_the_authenticator(
    client: JsonClient, authenticator: Authenticator
) -> None:
    answer = try_to_sign_in(client, authenticator, Wrong(flags=BS))

    factors = client.as_user(answer.get_json()["access_token"]).get("/api/v1/auth/mfa").get_json()
    assert factors["factors"][0]["backed_up"] is False


# Unknown passkeys


def damaged(credential: Json) -> Json:
    response = credential["response"]
    return {**credential, "response": {**response, "authenticatorData": "AAAA"}}


def test_only_a_passkey_of_no_account_is_unknown(
    app: Flask, client: JsonClient, own: SignedInClient, authenticator: Authenticator
) -> None:
    foreign = Authenticator()
    foreign.create(options(own, "/api/v1/auth/passkeys"))

    answers = {
        "foreign": try_to_sign_in(client, foreign),
        "damaged": client.post(
            SIGN_IN, json={"credential": damaged(authenticator.get(options(client, SIGN_IN)))}
        ),
        "renamed": client.post(
            SIGN_IN,
            json={
                "credential": {
                    **authenticator.get(options(client, SIGN_IN)),
                    "rawId": base64url(foreign.passkeys[0].id),
                }
            },
        ),
    }
    change(app, "DELETE FROM passkeys")
    answers["deleted"] = try_to_sign_in(client, authenticator)

    assert {name: code_of(answer) for name, answer in answers.items()} == {
        "foreign": (401, "passkey_unknown"),
        "damaged": (401, "passkey_invalid"),
        "renamed": (401, "passkey_invalid"),
        "deleted": (401, "passkey_unknown"),
    }
    row = audit_rows(app, action="auth.login")[-1]
    assert (row.target_id, row.details["reason"]) == (None, "unknown_credential")


def test_the_passkey_of_another_user_with_ones_own_handle_is_refused(
    client: JsonClient,
    own: SignedInClient,
    authenticator: Authenticator,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    other = Authenticator()
    add_passkey(log_in(make_user("marian")), other)
    handle = authenticator.passkeys[0].user_handle

    answer = try_to_sign_in(client, other, Wrong(user_handle=handle))

    assert code_of(answer) == (401, "passkey_invalid")


# The state of the account


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("status", "code"),
    [(UserStatus.SUSPENDED, "account_suspended"), (UserStatus.PENDING, "account_pending")],
)
def test_only_a_valid_assertion_shows_the_status(
    app: Flask, client: JsonClient, authenticator: Authenticator, status: str, code: str
) -> None:
    given = options(client, SIGN_IN)
    change(app, f"UPDATE users SET status = '{status}' WHERE username = 'robin'")

    wrong = try_to_sign_in(client, authenticator, Wrong(flags=UV))
    right = client.post(SIGN_IN, json={"credential": authenticator.get(given)})

    assert code_of(wrong) == (401, "passkey_invalid")
    assert code_of(right) == (403, code)
    row = audit_rows(app, action="auth.login")[-1]
    assert (row.outcome, row.details["reason"]) == ("denied", code)


def test_neither_lock_stops_a_passkey_and_it_clears_neither(
    app: Flask,
    client: JsonClient,
    robin: MadeUser,
    own: SignedInClient,
    authenticator: Authenticator,
) -> None:
    token = client.post(LOG_IN, json={"username": "robin", "password": robin.password}).get_json()[
        "mfa_token"
    ]
    for _ in range(5):
        client.post("/api/v1/auth/login/mfa", json={"mfa_token": token, "code": "000000"})
        client.post(LOG_IN, json={"username": "robin", "password": "wrong-password-1"})
    locked = count(app, "login_attempts")

    answer = try_to_sign_in(client, authenticator)

    assert answer.status_code == 200
    assert answer.get_json()["user"]["locked_until"] is not None
    assert count(app, "login_attempts") == locked
    assert code_of(client.post(LOG_IN, json={"username": "robin", "password": robin.password})) == (
        429,
        "too_many_attempts",
    )
    assert code_of(own.post(STEP_UP, json={"code": "000000"})) == (429, "too_many_attempts")


def test_a_required_change_of_the_password_holds_for_passkeys(
    app: Flask, client: JsonClient, own: SignedInClient, authenticator: Authenticator
) -> None:
    change(app, "UPDATE users SET must_change_password = true WHERE username = 'robin'")

    answer = try_to_sign_in(client, authenticator)

    session = SignedInClient(app, answer.get_json())
    assert answer.status_code == 200
    assert code_of(session.get(VERIFY)) == (403, "password_change_required")


def test_a_user_with_a_passkey_only_signs_in_by_password_in_two_steps(
    client: JsonClient, robin: MadeUser, log_in: LogIn, authenticator: Authenticator
) -> None:
    _, added = add_passkey(log_in(robin), authenticator)

    first = client.post(LOG_IN, json={"username": "robin", "password": robin.password}).get_json()
    second = client.post(
        "/api/v1/auth/login/mfa",
        json={"mfa_token": first["mfa_token"], "code": added["recovery_codes"][0]},
    )

    assert first["methods"] == ["passkey", "recovery_code"]
    assert (second.status_code, second.get_json()["recovery_codes_left"]) == (200, 9)


def test_passkeys_of_a_disabled_feature_remain_a_second_step(
    make_app: Callable[..., Flask],
    own: SignedInClient,
    robin: MadeUser,
    authenticator: Authenticator,
) -> None:
    app = make_app(FEATURE_PASSKEYS="false")
    client = JsonClient(app)

    alone = client.post(SIGN_IN, json={"credential": authenticator.get(options(own, SIGN_IN))})
    first = client.post(LOG_IN, json={"username": "robin", "password": PASSWORD}).get_json()
    given = options(client, "/api/v1/auth/login/mfa", {"mfa_token": first["mfa_token"]})
    second = client.post(
        "/api/v1/auth/login/mfa",
        json={"mfa_token": first["mfa_token"], "credential": authenticator.get(given)},
    )

    assert code_of(alone) == (403, "passkeys_disabled")
    assert second.status_code == 200


@pytest.mark.parametrize(
    "credential",
    [None, [], "text", {}, {"id": "AA", "rawId": "AA", "type": "public-key"}],
)
def test_a_credential_without_its_members_is_invalid(
    client: JsonClient, credential: object
) -> None:
    answer = client.post(SIGN_IN, json={"credential": credential})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"].startswith("credential")


@pytest.mark.usefixtures("own")
def test_padding_and_unknown_members_are_tolerated(
    client: JsonClient, authenticator: Authenticator
) -> None:
    credential = authenticator.get(options(client, SIGN_IN))
    response = {name: f"{value}==" for name, value in credential["response"].items()}
    padded = {
        **credential,
        "id": credential["id"] + "=",
        "response": {**response, "of the future": 1},
        "of the future": [],
    }

    assert client.post(SIGN_IN, json={"credential": padded}).status_code == 200
