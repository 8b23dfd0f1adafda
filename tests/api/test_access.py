"""Who may call what: the matrix of roles and endpoints, generated from the routes.

An endpoint that declares no access fails, as does one whose response to a role differs from its
declaration. Responses behind the access check (404, 409, 422 …) all count as "allowed".
"""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from tests.support.client import JsonClient
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.permissions import PermissionSet
from userapi.wiring.services import Services

ROLES = ("user", "moderator", "admin", "superadmin")
NOBODY = "01900000-0000-7000-8000-000000000000"
# Paths that are not the API: pages, documents and their files.
NO_JSON = {"documentation.asset"}


def operations(app: Flask) -> Iterator[tuple[str, str, Any]]:
    """Return method, path and view of every operation of the API."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("console."):
            continue  # Pages, which refuse by other pages.
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, _path(rule), app.view_functions[rule.endpoint]


def _path(rule: Rule) -> str:
    values = {name: NOBODY if "id" in name else "nothing" for name in rule.arguments}
    _, path = rule.build(values) or ("", rule.rule)
    return path


def is_allowed(answer: Any) -> bool:
    """Return whether a request passed the access check of its endpoint."""
    body = answer.get_json(silent=True) or {}
    return answer.status_code != 401 and body.get("code") not in (
        "permission_denied",
        "authentication_required",
    )


def send(client: JsonClient, method: str, path: str) -> Any:
    return client.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)


def test_every_endpoint_declares_its_access(app: Flask) -> None:
    silent = [path for _, path, view in operations(app) if not hasattr(view, "access")]

    assert silent == []


def test_every_protected_endpoint_needs_a_token(app: Flask, client: JsonClient) -> None:
    wrong = {
        (method, path): view.access
        for method, path, view in operations(app)
        if (send(client, method, path).status_code == 401)
        != (view.access != "public" and path != "/api/v1/auth/login")
    }

    assert wrong == {}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_call_the_endpoints_of_its_permissions(
    app: Flask, services: Services, make_user: MakeUser, log_in: LogIn, role: str
) -> None:
    with app.app_context():
        held = services.roles.graph().effective([role])
    user = make_user("caller", roles=[role])
    client = log_in(user)
    wrong = {}
    for method, path, view in operations(app):
        if view.access == "public":
            continue
        answer = send(client, method, path)
        if method != "GET":
            client = log_in(user)  # The request may have ended the session.

        if is_allowed(answer) != _expected(view, method, held):
            wrong[method, path] = (view.access, answer.status_code)

    assert wrong == {}


def test_suspended_users_may_call_no_protected_endpoint(
    app: Flask, services: Services, make_user: MakeUser, log_in: LogIn
) -> None:
    chief, sus = make_user("chief", roles=["superadmin"]), make_user("sus", roles=["superadmin"])
    client = log_in(sus)
    assert log_in(chief).post(f"/api/v1/users/{sus.id}/suspend").status_code == 200

    let_in = [
        path
        for method, path, view in operations(app)
        if view.access != "public"
        and path != "/api/v1/auth/logout"  # Answers alike whether the session still lives.
        and send(client, method, path).status_code != 401
    ]

    assert let_in == []


def _expected(view: Any, method: str, held: PermissionSet) -> bool:
    if view.access == "self":
        return True
    if any(permission in held for permission in view.access.split(" or ")):
        return True
    # Reading another user returns 404 instead of 403, which would reveal that the user exists.
    return bool(view.access_or_self and method == "GET" and "users:read" not in held)


def test_changing_another_user_needs_the_permission(make_user: MakeUser, log_in: LogIn) -> None:
    robin: MadeUser = make_user("robin")
    client = log_in(robin)

    own = client.patch(f"/api/v1/users/{robin.id}", json={"first_name": "R"})
    other = client.patch(f"/api/v1/users/{NOBODY}", json={"first_name": "R"})

    assert own.status_code == 200
    assert (other.status_code, other.get_json()["permission"]) == (403, "users:update")
