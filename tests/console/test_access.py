"""Access to pages, generated from the routes like the matrix of the API."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.pages import PageReader
from tests.support.users import MakeUser
from userapi.wiring.services import Services

NOBODY = "01900000-0000-7000-8000-000000000000"
ROLES = ("user", "moderator", "admin", "superadmin")
OPEN_TO_ALL = {
    "choose_theme",
    "complete_sign_in",
    "complete_sign_in_with_passkey",
    "forgot_password",
    "forgot_password_page",
    "nothing",
    "passkey_sign_in",
    "passkey_sign_in_options",
    "password_strength",
    "second_step_page",
    "second_step_passkey_options",
    "set_password",
    "set_password_page",
    "sign_in",
    "sign_in_page",
    "sign_out",
    "sign_up",
    "sign_up_page",
    "verify_email",
    "verify_email_page",
}


def operations(app: Flask) -> Iterator[tuple[str, str, str, Any]]:
    """Return method, path, name and view of every page."""
    for rule in app.url_map.iter_rules():
        blueprint, _, name = rule.endpoint.partition(".")
        if blueprint != "console" or name == "static":
            continue
        values = {n: NOBODY if "id" in n else "nothing" for n in rule.arguments}
        path = (rule.build(values) or ("", rule.rule))[1].removeprefix("/console")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path, name, app.view_functions[rule.endpoint]


def send(reader: PageReader, method: str, path: str) -> Any:
    return reader.get(path) if method == "GET" else reader.post(path)


def test_every_page_declares_its_access(app: Flask) -> None:
    silent = [name for _, _, name, view in operations(app) if not hasattr(view, "access")]
    public = {name for _, _, name, view in operations(app) if view.access == "public"}

    assert silent == []
    assert public == OPEN_TO_ALL


def test_anonymous_visitors_are_redirected_to_the_sign_in_page(
    app: Flask, reader: PageReader
) -> None:
    reader.get("/sign-in")
    wrong = {
        (method, path): answer.status_code
        for method, path, _, view in operations(app)
        if view.access != "public"
        for answer in [send(reader, method, path)]
        if not (answer.location or "").startswith("/console/sign-in")
    }

    assert wrong == {}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_the_pages_that_its_permissions_open(
    app: Flask, services: Services, sign_in: SignIn, make_user: MakeUser, role: str
) -> None:
    with app.app_context():
        held = services.roles.graph().effective([role])
    reader = sign_in(make_user("caller", roles=[role]))
    wrong = {}
    for method, path, name, view in operations(app):
        if view.access == "public" or name == "sign_out":
            continue
        answer = send(reader, method, path)

        may = view.access == "self" or view.access in held
        if (answer.status_code == 403) == may:
            wrong[method, path] = (view.access, answer.status_code)

    assert wrong == {}
