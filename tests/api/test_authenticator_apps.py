"""Authenticator apps: setting one up, confirming it, and what the first and the last one change."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.second_factors import (
    MFA,
    add_app,
    begin_step,
    code_of,
    first_step,
    log_in_with_code,
    mfa_token,
    second_step,
    set_up_app,
    wrong_code,
)
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

NOBODY = "01900000-0000-7000-8000-000000000000"
RECOVERY_CODE = re.compile(r"[0-9abcdefghjkmnpqrstvwxyz]{4}(-[0-9abcdefghjkmnpqrstvwxyz]{4}){3}")


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def session(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


def confirm(client: JsonClient, id_: str, code: str) -> Any:
    return client.post(f"{MFA}/totp/{id_}/confirm", json={"code": code})


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


# Setting up


def test_a_new_secret_comes_with_its_uri_and_a_qr_code(session: SignedInClient) -> None:
    set_up = set_up_app(session, name="Phone")

    assert re.fullmatch(r"[A-Z2-7]{32}", set_up["secret"])
    assert set_up["expires_in"] == 600
    uri = urlsplit(set_up["uri"])
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == "/User Management Service:robin"
    assert "%20" in set_up["uri"] and "+" not in set_up["uri"]
    assert parse_qs(uri.query) == {
        "secret": [set_up["secret"]],
        "issuer": ["User Management Service"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }


def test_the_qr_code_is_black_on_white_with_a_quiet_zone(session: SignedInClient) -> None:
    picture = ElementTree.fromstring(set_up_app(session)["qr_code"])

    namespace = "{http://www.w3.org/2000/svg}"
    (group,) = picture.iter(f"{namespace}g")
    ground, modules = group.findall(f"{namespace}path")
    assert ground.get("fill") == "#fff"
    assert modules.get("stroke") == "#000"
    # Modules begin in the middle of the fifth row, after four modules on the left.
    assert str(modules.get("d")).startswith("M4 4.5h7")
    assert "style" not in picture.attrib


def test_the_issuer_is_a_setting(
    make_app: Callable[..., Flask], robin: MadeUser, log_in: LogIn
) -> None:
    client = JsonClient(make_app(MFA_ISSUER="Acme & Söhne"), token=log_in(robin).access_token)

    uri = set_up_app(client)["uri"]

    assert uri.startswith("otpauth://totp/Acme%20%26%20S%C3%B6hne:robin?")
    assert "&issuer=Acme%20%26%20S%C3%B6hne&" in uri


def test_an_unconfirmed_app_is_no_factor(app: Flask, robin: MadeUser, session: Any) -> None:
    set_up_app(session)

    shown = session.get(MFA).get_json()

    assert shown == {
        "enabled": False,
        "required": False,
        "methods": [],
        "factors": [],
        "recovery_codes_left": 0,
        "webauthn": shown["webauthn"],
    }
    assert session.get("/api/v1/users/me").get_json()["mfa_enabled"] is False
    assert first_step(app, robin).status_code == 200


def test_a_further_secret_replaces_the_one_before(session: SignedInClient) -> None:
    """Half-made factors filled lists and limits elsewhere."""
    former = [set_up_app(session) for _ in range(29)]

    last = set_up_app(session)

    assert session.get(MFA).get_json()["factors"] == []
    for set_up in former:
        assert problem(confirm(session, set_up["id"], "000000")) == (404, "not_found")
    assert problem(confirm(session, last["id"], "000000x")) == (401, "invalid_code")


def test_an_unconfirmed_app_expires(session: SignedInClient, clock: ManualClock) -> None:
    set_up = set_up_app(session)
    clock.advance(seconds=601)

    late = confirm(session, set_up["id"], code_of(set_up["secret"], clock))

    assert problem(late) == (404, "not_found")


@pytest.mark.parametrize("body", [None, {}, {"name": "Phone"}, {"name": "é" * 64}])
def test_the_name_may_be_left_out(session: SignedInClient, clock: ManualClock, body: Any) -> None:
    app = add_app(session, clock, **(body or {}))

    (factor,) = app.client.get(MFA).get_json()["factors"]
    assert factor["name"] == (body or {}).get("name", "Authenticator app")


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\u0007b", 5, None])
def test_an_unusable_name_is_rejected(session: SignedInClient, name: Any) -> None:
    assert problem(session.post(f"{MFA}/totp", json={"name": name})) == (422, "validation_failed")


def test_apps_cannot_be_added_while_the_feature_is_off(
    make_app: Callable[..., Flask], robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    kept = add_app(log_in(robin), clock)
    off = make_app(FEATURE_MFA="false")
    client = JsonClient(off, token=kept.client.access_token)

    refused = client.post(f"{MFA}/totp")

    assert problem(refused) == (403, "totp_disabled")
    assert problem(JsonClient(off).post(f"{MFA}/totp")) == (401, "authentication_required")
    # The factor that exists is asked for as before.
    clock.advance(seconds=30)
    assert second_step(off, mfa_token(off, robin), kept.code()).status_code == 200


# Confirming


def test_the_first_app_brings_recovery_codes_and_a_new_pair(
    session: SignedInClient, clock: ManualClock
) -> None:
    set_up = set_up_app(session, name="Phone")

    answer = confirm(session, set_up["id"], code_of(set_up["secret"], clock))

    assert answer.status_code == 200
    added = answer.get_json()
    assert added["factor"] == {
        "id": set_up["id"],
        "type": "totp",
        "name": "Phone",
        "created_at": added["factor"]["created_at"],
        "last_used_at": None,
    }
    assert len(set(added["recovery_codes"])) == 10
    assert all(RECOVERY_CODE.fullmatch(code) for code in added["recovery_codes"])
    assert added["session_id"] == session.session_id
    assert "user" not in added
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_pair_from_before_the_first_factor_is_dead(
    client: JsonClient, session: SignedInClient, clock: ManualClock
) -> None:
    app = add_app(session, clock)

    assert problem(session.get("/api/v1/auth/me")) == (401, "token_revoked")
    refresh = client.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})
    assert problem(refresh) == (401, "token_revoked")
    me = app.client.get("/api/v1/auth/me").get_json()
    assert (me["acr"], sorted(me["amr"])) == ("aal2", ["mfa", "otp", "pwd"])
    assert me["mfa_enabled"] is True


def test_the_first_factor_ends_all_other_sessions(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    others, session = [log_in(robin), log_in(robin)], log_in(robin)

    added = add_app(session, clock)

    assert [problem(other.get("/api/v1/auth/me")) for other in others] == [
        (401, "token_revoked")
    ] * 2
    assert added.client.get("/api/v1/auth/me").status_code == 200
    ended = events(app, type_="session.revoked")
    assert [event.data["reason"] for event in ended] == ["mfa_enabled"] * 2


def test_a_further_factor_ends_nothing_and_brings_no_codes(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    first = add_app(session, clock)
    clock.advance(seconds=30)
    other = log_in_with_code(app, robin, first.code())

    second = add_app(first.client, clock, name="Tablet")

    assert second.recovery_codes == []
    assert other.get("/api/v1/auth/me").status_code == 200
    assert second.client.get(MFA).get_json()["recovery_codes_left"] == 10


def test_a_wrong_code_keeps_the_secret_and_counts_nowhere(
    session: SignedInClient, clock: ManualClock
) -> None:
    set_up = set_up_app(session)
    wrong = wrong_code(set_up["secret"], clock)

    answers = [problem(confirm(session, set_up["id"], wrong)) for _ in range(12)]

    assert answers == [(401, "invalid_code")] * 12
    assert confirm(session, set_up["id"], code_of(set_up["secret"], clock)).status_code == 200


def test_only_the_own_unconfirmed_app_can_be_confirmed(
    make_user: MakeUser, log_in: LogIn, session: SignedInClient, clock: ManualClock
) -> None:
    marian = log_in(make_user("marian"))
    foreign = set_up_app(session)

    assert problem(confirm(marian, foreign["id"], code_of(foreign["secret"], clock))) == (
        404,
        "not_found",
    )
    assert problem(confirm(marian, NOBODY, "123456")) == (404, "not_found")
    app = add_app(session, clock)
    assert problem(confirm(app.client, app.id, app.code())) == (404, "not_found")


def test_a_user_has_three_apps_at_most(session: SignedInClient, clock: ManualClock) -> None:
    app = add_app(session, clock)
    for _ in range(2):
        app = add_app(app.client, clock)

    assert problem(app.client.post(f"{MFA}/totp")) == (409, "too_many_factors")
    assert len(app.client.get(MFA).get_json()["factors"]) == 3


def test_what_an_added_app_leaves_behind(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    added = add_app(session, clock, name="Phone")

    (row,) = audit_rows(app, action="mfa.factor_added")
    assert (row.actor_username, str(row.session_id)) == ("robin", session.session_id)
    assert row.details == {"factor_id": added.id, "type": "totp", "name": "Phone"}
    assert len(audit_rows(app, action="mfa.recovery_codes_created")) == 1
    (event,) = events(app, type_="user.mfa_enabled")
    assert (event.data["user_id"], event.data["reason"]) == (robin.id, "self")
    assert [(mail.kind, mail.data) for mail in mails(app)] == [
        ("factor_added", {"factor": "Phone"})
    ]


def test_the_pair_that_comes_with_a_demanded_first_factor_carries_all(
    make_app: Callable[..., Flask], make_user: MakeUser, clock: ManualClock
) -> None:
    """Until then no other service takes the tokens for more than they are."""
    boss, chief = make_user("boss", roles=["admin"]), make_user("chief", roles=["superadmin"])
    demanding = make_app(MFA_REQUIRED_ROLES="admin")
    session = SignedInClient(demanding, first_step(demanding, boss).get_json())
    inspector = add_app(SignedInClient(demanding, first_step(demanding, chief).get_json()), clock)

    before = rights(session, inspector.client)
    phone = add_app(session, clock)
    after = rights(phone.client, inspector.client)

    assert before == ([], [], [], "", [])
    assert problem(session.get("/api/v1/users/")) == (401, "token_revoked")
    assert after[0] == after[2] == after[4] == ["admin"]
    assert "users:*" in after[1]
    assert "users:*" in after[3]
    assert phone.client.get("/api/v1/users/").status_code == 200


def rights(client: SignedInClient, inspector: JsonClient) -> tuple[Any, Any, Any, Any, Any]:
    """Return what a session may do by its token, by verification and by introspection."""
    claims = jwt.decode(client.access_token, options={"verify_signature": False})
    verified = client.get("/api/v1/auth/verify").get_json()
    body = {"token": client.access_token}
    described = inspector.post("/api/v1/auth/introspect", json=body).get_json()
    return (
        claims["roles"],
        claims["permissions"],
        verified["roles"],
        described["scope"],
        described["roles"],
    )


# The list, renaming


def test_the_list_shows_what_a_user_has(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    first = add_app(session, clock, name="Phone")
    second = add_app(first.client, clock, name="Phone")
    begin_step(clock)
    client = log_in_with_code(app, robin, second.code())

    shown = client.get(MFA).get_json()

    assert (shown["enabled"], shown["required"]) == (True, False)
    assert shown["methods"] == ["totp", "recovery_code"]
    assert shown["recovery_codes_left"] == 10
    assert [(f["id"], f["type"], f["name"]) for f in shown["factors"]] == [
        (first.id, "totp", "Phone"),
        (second.id, "totp", "Phone"),
    ]
    assert [factor["last_used_at"] is None for factor in shown["factors"]] == [True, False]


def test_administrators_see_the_factors_of_others(
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    session: SignedInClient,
    clock: ManualClock,
) -> None:
    added = add_app(session, clock)
    path = f"/api/v1/users/{robin.id}/mfa"

    shown = log_in(make_user("mod", roles=["moderator"])).get(path).get_json()

    assert [factor["id"] for factor in shown["factors"]] == [added.id]
    assert shown["webauthn"] is None
    assert added.client.get(path).get_json() == shown
    assert problem(log_in(make_user("other")).get(path)) == (404, "not_found")
    assert problem(
        log_in(make_user("boss", roles=["admin"])).get(f"/api/v1/users/{NOBODY}/mfa")
    ) == (
        404,
        "not_found",
    )


def test_a_factor_is_renamed(app: Flask, session: SignedInClient, clock: ManualClock) -> None:
    added = add_app(session, clock, name="Phone")

    answer = added.client.patch(f"{MFA}/{added.id}", json={"name": "Old phone"})

    assert answer.status_code == 200
    assert answer.get_json() == added.client.get(MFA).get_json()["factors"][0]
    assert answer.get_json()["name"] == "Old phone"
    (row,) = audit_rows(app, action="mfa.factor_renamed")
    assert row.changes == {"name": ["Phone", "Old phone"]}


def test_only_own_confirmed_factors_can_be_renamed_and_removed(
    make_user: MakeUser, log_in: LogIn, session: SignedInClient, clock: ManualClock
) -> None:
    marian = log_in(make_user("marian"))
    added = add_app(session, clock)
    pending = set_up_app(added.client)

    for client, id_ in ((marian, added.id), (added.client, pending["id"]), (marian, NOBODY)):
        assert problem(client.patch(f"{MFA}/{id_}", json={"name": "x"})) == (404, "not_found")
        assert problem(client.delete(f"{MFA}/{id_}")) == (404, "not_found")


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 65}, {"name": "a", "b": 1}])
def test_a_factor_needs_a_usable_name(
    session: SignedInClient, clock: ManualClock, body: Any
) -> None:
    added = add_app(session, clock)

    assert problem(added.client.patch(f"{MFA}/{added.id}", json=body)) == (
        422,
        "validation_failed",
    )


# Removing


def test_removing_the_last_factor_deletes_recovery_codes_and_pending_sign_ins(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    added = add_app(session, clock, name="Phone")
    token = mfa_token(app, robin)

    answer = added.client.delete(f"{MFA}/{added.id}")

    assert (answer.status_code, answer.data) == (204, b"")
    shown = added.client.get(MFA).get_json()
    assert (shown["enabled"], shown["methods"], shown["recovery_codes_left"]) == (False, [], 0)
    assert problem(second_step(app, token, added.recovery_codes[0])) == (401, "mfa_token_invalid")
    assert first_step(app, robin).status_code == 200
    (event,) = events(app, type_="user.mfa_disabled")
    assert event.data["reason"] == "self"
    assert [mail.kind for mail in mails(app)] == ["factor_added", "mfa_disabled"]


def test_any_removed_factor_ends_all_other_sessions(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    first = add_app(session, clock, name="Phone")
    second = add_app(first.client, clock, name="Tablet")
    begin_step(clock)
    other = log_in_with_code(app, robin, second.code())

    answer = second.client.delete(f"{MFA}/{first.id}")

    assert answer.status_code == 204
    assert problem(other.get("/api/v1/auth/me")) == (401, "token_revoked")
    assert second.client.get("/api/v1/auth/me").status_code == 200
    shown = second.client.get(MFA).get_json()
    assert [factor["name"] for factor in shown["factors"]] == ["Tablet"]
    assert shown["recovery_codes_left"] == 10
    assert events(app, type_="session.revoked")[-1].data["reason"] == "factor_removed"
    assert events(app, type_="user.mfa_disabled") == []
    assert mails(app)[-1].kind == "factor_removed"
    (row,) = audit_rows(app, action="mfa.factor_removed")
    assert row.details == {"factor_id": first.id, "type": "totp", "name": "Phone"}


def test_the_last_factor_stays_where_a_role_demands_one(
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    log_in: LogIn,
    clock: ManualClock,
) -> None:
    """The role is inherited: superadmins inherit from admins."""
    demanding = make_app(MFA_REQUIRED_ROLES="admin")
    chief = log_in(make_user("chief", roles=["superadmin"]))
    client = SignedInClient(
        demanding,
        {
            "access_token": chief.access_token,
            "refresh_token": chief.refresh_token,
            "session_id": chief.session_id,
        },
    )
    first = add_app(client, clock)
    second = add_app(first.client, clock)

    allowed = second.client.delete(f"{MFA}/{first.id}")
    refused = second.client.delete(f"{MFA}/{second.id}")

    assert allowed.status_code == 204
    assert problem(refused) == (409, "mfa_required_by_role")
    shown = second.client.get(MFA).get_json()
    assert (shown["required"], len(shown["factors"])) == (True, 1)


# New recovery codes


def test_new_recovery_codes_void_all_former_ones(
    app: Flask, robin: MadeUser, session: SignedInClient, clock: ManualClock
) -> None:
    added = add_app(session, clock)

    answer = added.client.post(f"{MFA}/recovery-codes")

    assert answer.status_code == 201
    codes = answer.get_json()["recovery_codes"]
    assert len(set(codes) | set(added.recovery_codes)) == 20
    token = mfa_token(app, robin)
    assert problem(second_step(app, token, added.recovery_codes[3])) == (401, "invalid_code")
    assert second_step(app, token, codes[3]).get_json()["recovery_codes_left"] == 9
    assert [mail.kind for mail in mails(app)] == [
        "factor_added",
        "recovery_codes_created",
        "recovery_code_used",
    ]
    assert len(audit_rows(app, action="mfa.recovery_codes_created")) == 2


def test_without_a_factor_there_are_no_recovery_codes(session: SignedInClient) -> None:
    assert problem(session.post(f"{MFA}/recovery-codes")) == (409, "mfa_not_enabled")


def test_the_export_of_a_user_has_their_factors_and_no_secret(
    session: SignedInClient, clock: ManualClock
) -> None:
    added = add_app(session, clock)

    export = added.client.get("/api/v1/users/me/export")

    assert export.get_json()["mfa"] == added.client.get(MFA).get_json()
    assert added.secret not in export.text
    assert not any(code in export.text for code in added.recovery_codes)
