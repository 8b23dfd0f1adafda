"""Tokens stay short enough for a header, and contain no roles until a password change."""

from typing import Any

import jwt
import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.actor import system_actor
from userapi.roles.definitions import RoleDefinition
from userapi.wiring.services import Services

NEW_PASSWORD = "granite-otter-57-teapot"


@pytest.fixture
def holder(app: Flask, services: Services, make_user: MakeUser) -> MadeUser:
    """Return a user with six roles of sixty permissions each."""
    names = [f"team-{number}" for number in range(6)]
    with app.app_context():
        for name in names:
            permissions = tuple(f"{name}-resource:action-{number:02d}" for number in range(60))
            services.role_editor.create(
                RoleDefinition(name=name, permissions=permissions), actor=system_actor("tests")
            )
    return make_user("holder", roles=[*names, "moderator"])


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_a_token_that_would_be_too_long_omits_the_permissions(
    holder: MadeUser, log_in: LogIn
) -> None:
    """A log-in returned 19 KB, and every request with that token got 431."""
    client = log_in(holder)
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})

    for token in (client.access_token, answer.get_json()["access_token"]):
        claims = claims_of(token)

        assert len(token) <= 4096
        assert claims["permissions_omitted"] is True
        assert "permissions" not in claims
        assert claims["roles"] == ["moderator", *(f"team-{number}" for number in range(6))]


def test_the_service_uses_the_permissions_of_the_live_session(
    holder: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    client = log_in(holder)
    inspector = log_in(make_user("inspector", roles=["superadmin"]))

    listed = client.get("/api/v1/users/")
    told = [client.get(f"/api/v1/auth/{path}").get_json() for path in ("me", "verify")]
    inspected = inspector.post(
        "/api/v1/auth/introspect", json={"token": client.access_token}
    ).get_json()

    assert listed.status_code == 200
    wanted = {f"team-5-resource:action-{number:02d}" for number in range(60)} | {"users:read"}
    for permissions in (*(body["permissions"] for body in told), inspected["scope"].split(" ")):
        assert wanted <= set(permissions)
        assert len(permissions) == 365


def test_an_ordinary_token_contains_its_permissions(make_user: MakeUser, log_in: LogIn) -> None:
    claims = claims_of(log_in(make_user("mod", roles=["moderator"])).access_token)

    assert "users:read" in claims["permissions"]
    assert "permissions_omitted" not in claims


def test_the_maximum_length_of_a_token_is_configurable(make_app: Any, make_user: MakeUser) -> None:
    robin = make_user("mod", roles=["moderator"])
    client = JsonClient(make_app(JWT_MAX_BYTES="300"))

    answer = client.post(
        "/api/v1/auth/login", json={"username": robin.username, "password": PASSWORD}
    )

    assert claims_of(answer.get_json()["access_token"])["permissions_omitted"] is True


# Sessions that may only change the password


def restricted(claims: dict[str, Any]) -> bool:
    return (claims["roles"], claims["permissions"]) == ([], [])


def test_tokens_contain_no_roles_until_a_required_password_change(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """Services that verify only the signature granted access by these roles."""
    robin = log_in(make_user("robin", roles=["admin"], must_change_password=True))
    refreshed = client.post("/api/v1/auth/refresh", json={"refresh_token": robin.refresh_token})
    pair = refreshed.get_json()

    assert restricted(claims_of(robin.access_token))
    assert restricted(claims_of(pair["access_token"]))

    changed = client.as_user(pair["access_token"]).post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    )
    claims = claims_of(changed.get_json()["access_token"])
    assert claims["roles"] == ["admin"]
    assert "users:*" in claims["permissions"]


def test_a_refresh_returns_no_roles_once_the_password_must_change(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    boss: SignedInClient = log_in(make_user("boss", roles=["superadmin"]))
    robin = make_user("robin", roles=["moderator"])
    session = log_in(robin)
    assert not restricted(claims_of(session.access_token))
    boss.patch(f"/api/v1/users/{robin.id}", json={"must_change_password": True})

    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})

    assert restricted(claims_of(answer.get_json()["access_token"]))
