"""Pages apply the rules of the API about fresh sessions and required factors."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.authentication import set_authentication, set_mfa_enabled
from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.pages import PageReader
from tests.support.users import PASSWORD, MadeUser, MakeUser
from userapi.clock import ManualClock
from userapi.wiring.services import Services

MakeApp = Callable[..., Flask]
SENSITIVE = [
    ("/password", {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}),
    ("/email", {"current_password": PASSWORD, "new_email": "new@example.com"}),
    ("/my-data/delete", {"current_password": PASSWORD}),
]
CHANGES = ("auth.password_changed", "user.email_change_requested", "user.deleted")


def signed_in(app: Flask, user: MadeUser) -> PageReader:
    browser = PageReader(app)
    assert browser.sign_in(user).status_code == 303
    return browser


def session_of(app: Flask, user: MadeUser) -> str:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        [(_, session)] = services.sessions.list_live(limit=1)
    return str(session.id)


def changes(app: Flask) -> list[str]:
    return [row.action for row in audit_rows(app) if row.action in CHANGES]


@pytest.mark.parametrize(("page", "form"), SENSITIVE)
def test_sensitive_forms_need_a_fresh_session_of_users_with_a_factor(
    app: Flask, clock: ManualClock, make_user: MakeUser, page: str, form: dict[str, str]
) -> None:
    robin = make_user("robin")
    browser = signed_in(app, robin)
    set_mfa_enabled(app, robin.id)

    browser.post(page, **form)
    set_authentication(app, robin.id, session_of(app, robin), acr="aal2", amr="pwd otp mfa")
    clock.advance(seconds=901)
    browser.post(page, **form)
    refused = changes(app)
    set_authentication(app, robin.id, session_of(app, robin), authenticated_at=clock.now())
    browser.post(page, **form)

    assert refused == []
    assert len(changes(app)) == 1


def test_a_permission_that_needs_a_step_up_needs_it_here_too(
    make_app: MakeApp, clock: ManualClock, make_user: MakeUser
) -> None:
    app = make_app(STEP_UP_PERMISSIONS="users:suspend")
    boss, robin = make_user("boss", roles=["superadmin"]), make_user("robin")
    browser = signed_in(app, boss)
    clock.advance(seconds=901)

    browser.get(f"/users/{robin.id}")
    browser.post(f"/users/{robin.id}/suspend")
    while_stale = [row.action for row in audit_rows(app, action="user.suspended")]
    set_authentication(app, boss.id, session_of(app, boss), authenticated_at=clock.now())
    browser.get(f"/users/{robin.id}")
    browser.post(f"/users/{robin.id}/suspend")

    assert while_stale == []
    assert len(audit_rows(app, action="user.suspended")) == 1


def test_who_must_add_a_factor_reaches_no_other_page(
    make_app: MakeApp, make_user: MakeUser
) -> None:
    app = make_app(MFA_REQUIRED_ROLES="moderator")
    boss = make_user("boss", roles=["superadmin"])
    browser = PageReader(app)
    browser.sign_in(boss)

    pages = [browser.get(path) for path in ("/users", "/profile", "/roles", "/audit")]
    browser.post("/profile", first_name="Bo")

    assert 200 not in {answer.status_code for answer in pages}
    shown = JsonClient(app).post(
        "/api/v1/auth/login", json={"username": "boss", "password": PASSWORD}
    )
    assert shown.get_json()["user"]["first_name"] is None
