"""Adding passkeys: options, checks, and what the first factor of an account brings."""

import itertools
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import insert, select, text

from tests.support.authenticator import (
    BE,
    BS,
    UV,
    Authenticator,
    Wrong,
    base64url,
    from_base64url,
)
from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.passkeys import ADD, SIGN_IN, STEP_UP, add_passkey, options, try_to_add
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.factors.models import Passkey, UsedChallenge
from userapi.infrastructure.database import new_id, reading, table_of, transaction
from userapi.wiring.services import Services

VERIFY = "/api/v1/auth/verify"
OPTIONS = f"{ADD}/options"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin", first_name="Robin", last_name="Hood")


@pytest.fixture
def own(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


def rows_of(app: Flask, model: Any) -> Any:
    with app.app_context(), reading() as connection:
        return connection.execute(select(table_of(model))).all()


def test_options_ask_for_a_discoverable_passkey_of_the_user(
    own: SignedInClient, robin: MadeUser
) -> None:
    answer = own.post(OPTIONS)

    body = answer.get_json()
    public_key = body["public_key"]
    assert (answer.status_code, body["expires_in"]) == (200, 300)
    assert answer.headers["Cache-Control"] == "no-store"
    assert public_key["rp"] == {"id": "localhost", "name": "User Management Service"}
    assert public_key["user"]["name"] == "robin"
    assert public_key["user"]["displayName"] == "Robin Hood"
    handle = from_base64url(public_key["user"]["id"])
    assert len(handle) == 32
    assert UUID(robin.id).bytes not in handle
    assert public_key["authenticatorSelection"]["residentKey"] == "required"
    assert public_key["authenticatorSelection"]["userVerification"] == "required"
    assert [entry["alg"] for entry in public_key["pubKeyCredParams"]] == [-8, -7, -257]
    assert (public_key["attestation"], public_key["timeout"]) == ("none", 300000)
    assert public_key["excludeCredentials"] == []


def test_the_user_handle_of_an_account_never_changes(
    own: SignedInClient, authenticator: Authenticator, make_user: MakeUser, log_in: LogIn
) -> None:
    before = [options(own, ADD)["user"]["id"] for _ in range(2)]

    client, _ = add_passkey(own, authenticator)
    after = options(client, ADD)["user"]["id"]
    other = options(log_in(make_user("marian")), ADD)["user"]["id"]

    assert before == [after, after]
    assert other != after


def test_the_account_shows_what_browsers_need_to_remove_passkeys(own: SignedInClient) -> None:
    shown = own.get("/api/v1/auth/mfa").get_json()["webauthn"]

    assert shown == {"rp_id": "localhost", "user_id": options(own, ADD)["user"]["id"]}


def test_a_display_name_falls_back_to_the_user_name(make_user: MakeUser, log_in: LogIn) -> None:
    user = options(log_in(make_user("marian")), ADD)["user"]

    assert (user["name"], user["displayName"]) == ("marian", "marian")


def test_the_first_passkey_switches_two_step_sign_in_on(
    app: Flask, own: SignedInClient, robin: MadeUser, log_in: LogIn, authenticator: Authenticator
) -> None:
    other = log_in(robin)

    answer = try_to_add(own, authenticator, name="My phone")

    body = answer.get_json()
    passkey = authenticator.passkeys[0]
    assert answer.status_code == 201
    assert len(set(body["recovery_codes"])) == 10
    factor = body["factor"]
    assert (factor["type"], factor["name"], factor["last_used_at"]) == ("passkey", "My phone", None)
    assert factor["credential_id"] == base64url(passkey.id)
    assert (factor["backed_up"], factor["transports"]) == (True, ["hybrid", "internal"])
    assert body["session_id"] == own.session_id
    assert (body["token_type"], body["expires_in"]) == ("bearer", 1800)
    # The other session ends, and of this one only the new pair is good.
    assert other.get(VERIFY).get_json()["code"] == "token_revoked"
    assert own.get(VERIFY).get_json()["code"] == "token_revoked"
    verified = SignedInClient(app, body).get(VERIFY).get_json()
    assert verified["acr"] == "aal2"
    assert set(verified["amr"]) == {"pwd", "pop", "user", "mfa"}
    assert JsonClient(app).post(
        "/api/v1/auth/login", json={"username": "robin", "password": robin.password}
    ).get_json()["methods"] == ["passkey", "recovery_code"]


def test_the_first_passkey_is_recorded(
    app: Flask, own: SignedInClient, robin: MadeUser, log_in: LogIn, authenticator: Authenticator
) -> None:
    log_in(robin)

    add_passkey(own, authenticator)

    (row,) = audit_rows(app, action="mfa.factor_added")
    assert (row.outcome, row.target_id, row.details["type"]) == ("success", robin.id, "passkey")
    (enabled,) = events(app, type_="user.mfa_enabled")
    assert enabled.data["reason"] == "self"
    (ended,) = events(app, type_="session.revoked")
    assert ended.data["reason"] == "mfa_enabled"
    assert [mail.kind for mail in mails(app)] == ["factor_added"]
    # No secret and no credential id leaves the database.
    credential_id = base64url(authenticator.passkeys[0].id)
    for stored in (*audit_rows(app), *events(app), *mails(app)):
        assert credential_id not in str(tuple(stored))


def test_a_further_passkey_brings_no_codes_and_ends_no_session(
    app: Flask, own: SignedInClient, authenticator: Authenticator
) -> None:
    client, _ = add_passkey(own, authenticator)
    signed_in = client.post(
        SIGN_IN, json={"credential": authenticator.get(options(client, SIGN_IN))}
    ).get_json()

    excluded = options(client, ADD)["excludeCredentials"]
    client, body = add_passkey(client, authenticator)

    assert "recovery_codes" not in body
    assert [entry["id"] for entry in excluded] == [base64url(authenticator.passkeys[0].id)]
    assert client.get(VERIFY).status_code == 200
    assert SignedInClient(app, signed_in).get(VERIFY).status_code == 200


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Passkey (Firefox on Linux)",
        ),
        ("", "Passkey (Unknown device)"),
    ],
)
def test_a_passkey_without_a_name_is_named_after_the_device(
    own: SignedInClient, authenticator: Authenticator, user_agent: str, name: str
) -> None:
    credential = authenticator.create(options(own, ADD))

    answer = own.post(ADD, json={"credential": credential}, headers={"User-Agent": user_agent})

    assert answer.get_json()["factor"]["name"] == name


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\u0007", None, 7])
def test_names_have_1_to_64_visible_characters(
    own: SignedInClient, authenticator: Authenticator, name: object
) -> None:
    answer = try_to_add(own, authenticator, name=name)

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "name"


# Checks

WRONG = {
    "user verification": Wrong(flags=UV),
    "origin": Wrong(client_data={"origin": "https://evil.example"}),
    "cross origin": Wrong(client_data={"crossOrigin": True}),
    "top origin": Wrong(client_data={"topOrigin": "https://evil.example"}),
    "type": Wrong(client_data={"type": "webauthn.get"}),
    "challenge": Wrong(client_data={"challenge": base64url(bytes(78))}),
    "no challenge": Wrong(client_data={"challenge": None}),
    "RP ID": Wrong(rp_id="example.com"),
    "backup state": Wrong(flags=BE, extra_flags=BS),
    "public key": Wrong(public_key={1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)}),
    "attested id": Wrong(attested_id=b"another"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_passkey_that_fails_a_check_is_rejected(
    app: Flask, own: SignedInClient, authenticator: Authenticator, wrong: Wrong
) -> None:
    answer = try_to_add(own, authenticator, wrong)

    assert (answer.status_code, answer.get_json()["code"]) == (400, "passkey_invalid")
    assert rows_of(app, Passkey) == []
    assert own.get(VERIFY).status_code == 200


def test_user_verification_is_required_of_new_passkeys(
    own: SignedInClient, authenticator: Authenticator
) -> None:
    assert try_to_add(own, authenticator, Wrong(flags=UV)).status_code == 400
    assert try_to_add(own, authenticator).status_code == 201


def test_id_and_raw_id_are_equal(own: SignedInClient, authenticator: Authenticator) -> None:
    credential = authenticator.create(options(own, ADD))

    answer = own.post(ADD, json={"credential": {**credential, "rawId": base64url(bytes(32))}})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "passkey_invalid")


def test_a_challenge_is_good_in_one_session_for_300_seconds(
    own: SignedInClient,
    robin: MadeUser,
    log_in: LogIn,
    authenticator: Authenticator,
    clock: ManualClock,
) -> None:
    other = log_in(robin)
    in_time, late = options(own, ADD), options(own, ADD)

    elsewhere = other.post(ADD, json={"credential": authenticator.create(in_time)})
    clock.advance(seconds=290)
    first = own.post(ADD, json={"credential": authenticator.create(in_time)})
    clock.advance(seconds=20)
    client = SignedInClient(own.app, first.get_json())
    second = client.post(ADD, json={"credential": authenticator.create(late)})

    assert [elsewhere.status_code, first.status_code, second.status_code] == [400, 201, 400]


def test_a_challenge_is_good_for_one_passkey(
    app: Flask, own: SignedInClient, authenticator: Authenticator
) -> None:
    given = options(own, ADD)
    first = own.post(ADD, json={"credential": authenticator.create(given)})
    client = SignedInClient(app, first.get_json())

    second = client.post(ADD, json={"credential": authenticator.create(given)})

    assert (second.status_code, second.get_json()["code"]) == (400, "passkey_invalid")
    assert len(rows_of(app, Passkey)) == 1


@pytest.mark.parametrize("path", [SIGN_IN, STEP_UP])
def test_challenges_of_other_purposes_add_no_passkey(
    own: SignedInClient, authenticator: Authenticator, path: str
) -> None:
    client, _ = add_passkey(own, authenticator)
    creation = options(client, ADD)
    creation["challenge"] = options(client, path)["challenge"]

    answer = client.post(ADD, json={"credential": authenticator.create(creation)})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "passkey_invalid")


def test_a_known_passkey_is_taken_on_every_account(
    own: SignedInClient, authenticator: Authenticator, make_user: MakeUser, log_in: LogIn
) -> None:
    client, _ = add_passkey(own, authenticator)
    known = authenticator.passkeys[0]
    other = log_in(make_user("marian"))
    statuses = []

    for caller in (client, other):
        creation = options(caller, ADD)
        credential = authenticator.create(creation, Wrong(attested_id=known.id))
        credential["id"] = credential["rawId"] = base64url(known.id)
        answer = caller.post(ADD, json={"credential": credential})
        statuses.append((answer.status_code, answer.get_json()["code"]))

    assert statuses == [(409, "passkey_taken")] * 2
    assert other.get(VERIFY).status_code == 200


def test_an_account_has_20_passkeys_at_most(
    app: Flask, own: SignedInClient, robin: MadeUser, authenticator: Authenticator
) -> None:
    client, _ = add_passkey(own, authenticator)
    creation = options(client, ADD)
    (row,) = rows_of(app, Passkey)
    with app.app_context(), transaction() as session:
        session.execute(
            insert(table_of(Passkey)),
            [
                {**row._mapping, "id": new_id(), "credential_id": bytes([number])}
                for number in range(19)
            ],
        )

    answers = [
        client.post(OPTIONS),
        client.post(ADD, json={"credential": authenticator.create(creation)}),
    ]

    assert [(a.status_code, a.get_json()["code"]) for a in answers] == [
        (409, "too_many_factors")
    ] * 2


# Form


def test_unknown_members_of_a_credential_are_ignored(
    own: SignedInClient, authenticator: Authenticator
) -> None:
    credential = authenticator.create(options(own, ADD))
    credential["of the future"] = {"a": [1]}
    credential["response"]["of the future"] = None
    credential["response"]["attestationObject"] += "=="

    assert own.post(ADD, json={"credential": credential}).status_code == 201


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *itertools.product(("id", "rawId", "type", "response"), (None, 7, [])),
        ("response", {}),
        ("response", {"clientDataJSON": "e30"}),
        ("response", {"clientDataJSON": 7, "attestationObject": "e30"}),
        ("response", {"clientDataJSON": "e30", "attestationObject": "e30", "transports": "usb"}),
        ("response", {"clientDataJSON": "e30", "attestationObject": "e30", "transports": [7]}),
    ],
)
def test_a_missing_or_wrongly_typed_member_is_invalid(
    own: SignedInClient, authenticator: Authenticator, member: str, value: object
) -> None:
    credential = {**authenticator.create(options(own, ADD)), member: value}

    answer = own.post(ADD, json={"credential": credential})

    assert answer.status_code == 422
    assert all(
        error["field"].startswith(f"credential.{member}") for error in answer.get_json()["errors"]
    )


@pytest.mark.parametrize(
    "body", [{}, {"credential": None}, {"credential": []}, {"credential": {}, "more": 1}]
)
def test_a_body_is_strict_outside_of_the_credential(own: SignedInClient, body: object) -> None:
    assert own.post(ADD, json=body).status_code == 422


def test_options_take_no_members(own: SignedInClient) -> None:
    assert own.post(OPTIONS, json={}).status_code == 200
    assert own.post(OPTIONS, json={"name": "My phone"}).status_code == 422


# Switches and the address of the service

ANY_CREDENTIAL = {
    "id": "AA",
    "rawId": "AA",
    "type": "public-key",
    "response": {"clientDataJSON": "AA", "authenticatorData": "AA", "signature": "AA"},
}


@pytest.mark.parametrize(
    "environment",
    [
        {"FEATURE_PASSKEYS": "false"},
        {"PUBLIC_BASE_URL": "http://id.example.com"},
        {"PUBLIC_BASE_URL": "https://192.0.2.7"},
    ],
)
def test_without_passkeys_none_can_be_added(
    make_app: Callable[..., Flask], own: SignedInClient, environment: dict[str, str]
) -> None:
    app = make_app(**environment)
    signed_in, stranger = JsonClient(app, token=own.token), JsonClient(app)

    answers = [
        signed_in.post(OPTIONS),
        signed_in.post(ADD, json={}),
        stranger.post(f"{SIGN_IN}/options"),
        stranger.post(f"{SIGN_IN}/options", json={"nonsense": 1}),
        stranger.post(SIGN_IN, json={"credential": ANY_CREDENTIAL}),
        stranger.post(SIGN_IN, json={"nonsense": 1}),
    ]

    assert [(a.status_code, a.get_json()["code"]) for a in answers] == [
        (403, "passkeys_disabled")
    ] * 6
    assert stranger.post(OPTIONS).status_code == 401


@pytest.mark.parametrize(
    ("environment", "rp_id"),
    [
        ({}, "localhost"),
        ({"PUBLIC_BASE_URL": "http://127.0.0.1:8000"}, "localhost"),
        ({"PUBLIC_BASE_URL": "https://id.example.com/users"}, "id.example.com"),
        (
            {"PUBLIC_BASE_URL": "https://id.example.com", "WEBAUTHN_RP_ID": "example.com"},
            "example.com",
        ),
    ],
)
def test_the_rp_id_comes_from_the_settings_and_not_from_the_request(
    make_app: Callable[..., Flask], own: SignedInClient, environment: dict[str, str], rp_id: str
) -> None:
    client = JsonClient(make_app(**environment, TRUSTED_PROXY_COUNT="1"), token=own.token)
    headers = {
        "Host": "evil.example",
        "Origin": "https://evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
    }

    creation = client.post(OPTIONS, headers=headers).get_json()["public_key"]
    request = client.post(f"{SIGN_IN}/options", headers=headers).get_json()["public_key"]

    assert (creation["rp"]["id"], request["rpId"]) == (rp_id, rp_id)


@pytest.mark.parametrize(
    ("origins", "related"),
    [
        ("https://id.example.com", None),
        ("https://id.example.com,https://login.example.com", ["https://login.example.com"]),
        (
            "https://id.example.com,https://example.org,android:apk-key-hash:" + "A" * 43,
            ["https://example.org"],
        ),
    ],
)
def test_related_origins_are_published(
    make_app: Callable[..., Flask], origins: str, related: list[str] | None
) -> None:
    app = make_app(PUBLIC_BASE_URL="https://id.example.com", WEBAUTHN_ORIGINS=origins)

    answer = JsonClient(app).get("/.well-known/webauthn")

    if related is None:
        assert answer.status_code == 404
    else:
        assert (answer.status_code, answer.get_json()) == (200, {"origins": related})
        assert answer.headers["Cache-Control"] == "public, max-age=300"


def test_a_passkey_is_added_at_each_configured_origin(
    make_app: Callable[..., Flask], own: SignedInClient, log_in: LogIn, make_user: MakeUser
) -> None:
    app = make_app(
        PUBLIC_BASE_URL="https://id.example.com",
        WEBAUTHN_ORIGINS="https://id.example.com,https://example.org",
    )
    statuses = {}
    for number, origin in enumerate(
        ("https://id.example.com", "https://example.org", "https://login.id.example.com")
    ):
        client = JsonClient(app, token=log_in(make_user(f"user-{number}")).token)
        statuses[origin] = try_to_add(client, Authenticator(origin=origin)).status_code

    assert statuses == {
        "https://id.example.com": 201,
        "https://example.org": 201,
        "https://login.id.example.com": 400,
    }


# Freshness and restricted sessions


def test_a_session_that_goes_stale_between_options_and_passkey_may_finish(
    make_app: Callable[..., Flask],
    own: SignedInClient,
    authenticator: Authenticator,
    clock: ManualClock,
) -> None:
    client = JsonClient(make_app(STEP_UP_MAX_AGE_SECONDS="5"), token=own.token)
    given = options(client, ADD)
    clock.advance(seconds=60)

    stale = client.post(OPTIONS)
    added = client.post(ADD, json={"credential": authenticator.create(given)})

    assert stale.get_json()["code"] == "insufficient_user_authentication"
    assert added.status_code == 201


def test_a_user_whose_role_demands_a_factor_enrolls_a_passkey(
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    log_in: LogIn,
    authenticator: Authenticator,
) -> None:
    app = make_app(MFA_REQUIRED_ROLES="admin")
    boss = make_user("boss", roles=["admin"])
    client = SignedInClient(
        app,
        JsonClient(app)
        .post("/api/v1/auth/login", json={"username": "boss", "password": boss.password})
        .get_json(),
    )
    assert client.get("/api/v1/users/").get_json()["code"] == "mfa_enrollment_required"

    client, _ = add_passkey(client, authenticator)
    signed_in = client.post(
        SIGN_IN, json={"credential": authenticator.get(options(client, SIGN_IN))}
    ).get_json()

    for session in (client, SignedInClient(app, signed_in)):
        assert session.get("/api/v1/users/").status_code == 200
        assert session.get(VERIFY).get_json()["roles"] == ["admin"]


def test_of_two_uses_of_one_access_token_one_adds_a_passkey(
    app: Flask, own: SignedInClient
) -> None:
    first, second = Authenticator(), Authenticator()
    credentials = [
        first.create(options(own, ADD)),
        second.create(options(own, ADD)),
    ]

    answers = [own.post(ADD, json={"credential": credential}) for credential in credentials]

    assert [answer.status_code for answer in answers] == [201, 401]
    assert answers[1].get_json()["code"] == "token_revoked"
    assert len(rows_of(app, Passkey)) == 1


def test_a_deleted_user_frees_the_passkey(
    app: Flask,
    own: SignedInClient,
    robin: MadeUser,
    authenticator: Authenticator,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    add_passkey(own, authenticator)
    chief = log_in(make_user("chief", roles=["superadmin"]))
    assert chief.delete(f"/api/v1/users/{robin.id}").status_code == 204

    with app.app_context(), reading() as connection:
        left = connection.execute(
            text("SELECT (SELECT count(*) FROM passkeys), (SELECT count(*) FROM webauthn_users)")
        ).one()

    assert tuple(left) == (0, 0)


def test_used_challenges_are_deleted_after_they_have_expired(
    app: Flask,
    services: Services,
    own: SignedInClient,
    authenticator: Authenticator,
    clock: ManualClock,
) -> None:
    add_passkey(own, authenticator)

    counts = []
    for seconds in (301, 300):
        clock.advance(seconds=seconds)
        with app.app_context():
            services.clean_up.delete_due()
        counts.append(len(rows_of(app, UsedChallenge)))

    assert counts == [1, 0]
