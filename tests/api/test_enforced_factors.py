"""Roles that demand a second factor: what a session may do before its user has one."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.api.test_access import operations
from tests.support.authentication import set_authentication, set_mfa_enabled
from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.users import PASSWORD, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

pytestmark = pytest.mark.thorough

# What a session that may only add a factor reaches, besides what needs no session.
OPEN = {
    ("GET", "/api/v1/auth/me"),
    ("GET", "/api/v1/auth/verify"),
    ("GET", "/api/v1/auth/mfa"),
    ("POST", "/api/v1/auth/mfa/totp"),
    ("POST", "/api/v1/auth/mfa/totp/01900000-0000-7000-8000-000000000000/confirm"),
    ("POST", "/api/v1/auth/passkeys/options"),
    ("POST", "/api/v1/auth/passkeys"),
    ("POST", "/api/v1/auth/step-up"),
    ("POST", "/api/v1/auth/step-up/options"),
    ("POST", "/api/v1/auth/logout"),
}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(MFA_REQUIRED_ROLES="moderator,no-such-role")


LogIn = Callable[[MadeUser], SignedInClient]


@pytest.fixture
def log_in(app: Flask) -> LogIn:
    def log_in(user: MadeUser) -> SignedInClient:
        answer = JsonClient(app).post(
            "/api/v1/auth/login", json={"username": user.username, "password": user.password}
        )
        assert answer.status_code == 200, answer.text
        return SignedInClient(app, answer.get_json())

    return log_in


@pytest.fixture
def ada(make_user: MakeUser) -> MadeUser:
    """Return an administrator, whose role inherits from the one that demands a factor."""
    return make_user("ada", roles=["admin"])


@pytest.fixture
def inspector(app: Flask, make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    """Return a client that may introspect tokens and change roles; a factor took part in it."""
    chief = make_user("chief", roles=["superadmin"])
    client = log_in(chief)
    set_authentication(app, chief.id, client.session_id, acr="aal2", amr="pwd otp mfa")
    return client


def refusal(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


ENROLL = (403, "mfa_enrollment_required")


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def refreshed(client: SignedInClient) -> SignedInClient:
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})
    return SignedInClient(client.app, answer.get_json())


def rights(client: SignedInClient, inspector: SignedInClient) -> list[Any]:
    """Return the roles and permissions of a session: in its token, here, and by introspection."""
    claims = claims_of(client.access_token)
    me = client.get("/api/v1/auth/me").get_json()
    verified = client.get("/api/v1/auth/verify").get_json()
    described = inspector.post(
        "/api/v1/auth/introspect", json={"token": client.access_token}
    ).get_json()
    return [
        claims["roles"],
        claims["permissions"],
        me["permissions"],
        verified["roles"],
        verified["permissions"],
        described["roles"],
        described["scope"].split(),
    ]


def test_before_the_first_factor_no_service_takes_the_tokens_for_more(
    app: Flask, clock: ManualClock, ada: MadeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    session = log_in(ada)
    before = rights(session, inspector)
    after_a_refresh = rights(refreshed(session), inspector)

    set_mfa_enabled(app, ada.id)
    set_authentication(
        app,
        ada.id,
        session.session_id,
        acr="aal2",
        amr="pwd otp mfa",
        authenticated_at=clock.now(),
    )
    with_a_factor = rights(refreshed(refreshed(session)), inspector)

    assert before == after_a_refresh == [[]] * 7
    roles = [with_a_factor[index] for index in (0, 3, 5)]
    permissions = [with_a_factor[index] for index in (1, 2, 4, 6)]
    assert roles == [["admin"]] * 3
    assert all("users:*" in granted for granted in permissions)


def test_such_a_session_reaches_only_what_adds_a_factor(
    app: Flask, ada: MadeUser, log_in: LogIn
) -> None:
    answers = {}
    for method, path, view in operations(app):
        if view.access != "public":
            body: object = {} if method in ("POST", "PUT", "PATCH") else None
            answers[method, path] = log_in(ada).request(method, path, json=body)

    closed = {name for name, answer in answers.items() if answer.status_code == 403}

    assert {refusal(answers[name]) for name in closed} == {ENROLL}
    assert answers.keys() - closed == OPEN
    me = log_in(ada).get("/api/v1/auth/me").get_json()
    assert me["mfa_enrollment_required"] is True
    assert me["roles"] == ["admin"]
    assert {row.details["code"] for row in audit_rows(app, action="auth.permission_denied")} == {
        "mfa_enrollment_required"
    }


def test_it_comes_before_a_lack_of_permission_and_before_all_faults(
    make_user: MakeUser, log_in: LogIn
) -> None:
    session = log_in(make_user("mod", roles=["moderator"]))
    nobody = "01900000-0000-7000-8000-000000000000"

    answers = [
        session.get("/api/v1/audit-logs/"),
        session.delete(f"/api/v1/users/{nobody}"),
        session.get("/api/v1/users/me?nonsense=1"),
        session.patch("/api/v1/users/me", data=b"{", content_type="application/json"),
    ]

    assert [refusal(answer) for answer in answers] == [ENROLL] * 4
    assert refusal(session.as_user("x.y.z").get("/api/v1/users/me")) == (401, "token_invalid")


def test_a_step_up_does_not_lift_it(
    ada: MadeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    answer = log_in(ada).post("/api/v1/auth/step-up", json={"password": PASSWORD})
    session = SignedInClient(inspector.app, answer.get_json())

    assert answer.status_code == 200
    assert rights(session, inspector) == [[]] * 7
    assert refusal(session.get("/api/v1/users/me")) == ENROLL


def test_an_assigned_role_takes_effect_on_the_next_request(
    make_user: MakeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    robin = make_user("robin")
    session = log_in(robin)
    free = session.get("/api/v1/users/me")

    inspector.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})
    bound = session.get("/api/v1/users/me")
    inspector.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["user"]})
    again = session.get("/api/v1/users/me")

    assert (free.status_code, refusal(bound), again.status_code) == (200, ENROLL, 200)


def test_a_role_that_begins_to_inherit_takes_effect_on_the_next_request(
    make_user: MakeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    role = {"name": "editor", "permissions": ["media:upload"]}
    assert inspector.post("/api/v1/roles/", json=role).status_code == 201
    session = log_in(make_user("robin", roles=["editor"]))
    free = session.get("/api/v1/users/me")

    changed = inspector.put("/api/v1/roles/editor", json={"parents": ["moderator"]})

    assert (free.status_code, changed.status_code) == (200, 200)
    assert refusal(session.get("/api/v1/users/me")) == ENROLL


def test_other_roles_demand_nothing(make_user: MakeUser, log_in: LogIn) -> None:
    session = log_in(make_user("robin"))

    me = session.get("/api/v1/auth/me").get_json()

    assert me["mfa_enrollment_required"] is False
    assert claims_of(session.access_token)["roles"] == ["user"]
    assert session.get("/api/v1/users/me").status_code == 200


@pytest.mark.parametrize(("acr", "mfa_enabled"), [("aal2", False), ("aal1", True)])
def test_a_factor_of_the_user_or_of_the_session_lifts_it(
    app: Flask, ada: MadeUser, log_in: LogIn, acr: str, mfa_enabled: bool
) -> None:
    session = log_in(ada)
    set_mfa_enabled(app, ada.id, enabled=mfa_enabled)
    set_authentication(app, ada.id, session.session_id, acr=acr)

    assert session.get("/api/v1/users/").status_code == 200
    assert session.get("/api/v1/auth/me").get_json()["mfa_enrollment_required"] is False


def test_a_required_password_change_comes_first(
    make_user: MakeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    ada = make_user("ada", roles=["admin"], must_change_password=True)
    session = log_in(ada)
    first = session.get("/api/v1/users/me")
    me = session.get("/api/v1/auth/me")

    answer = session.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"},
    )
    changed = SignedInClient(session.app, answer.get_json())

    assert refusal(first) == refusal(me) == (403, "password_change_required")
    assert answer.status_code == 200
    assert refusal(changed.get("/api/v1/users/me")) == ENROLL
    assert rights(changed, inspector) == [[]] * 7


def test_a_session_that_must_change_its_password_may_step_up_and_stays_empty(
    make_user: MakeUser, log_in: LogIn, inspector: SignedInClient
) -> None:
    user = make_user("robin", must_change_password=True)
    answer = log_in(user).post("/api/v1/auth/step-up", json={"password": PASSWORD})
    session = SignedInClient(inspector.app, answer.get_json())

    claims = claims_of(session.access_token)
    described = inspector.post(
        "/api/v1/auth/introspect", json={"token": session.access_token}
    ).get_json()

    assert answer.status_code == 200
    assert (claims["roles"], claims["permissions"]) == ([], [])
    assert (described["active"], described["roles"], described["scope"]) == (True, [], "")
    assert refusal(session.get("/api/v1/auth/verify")) == (403, "password_change_required")
