"""Every endpoint that needs a fresh session, with a stale one and with a fresh one.

In other implementations anyone with an open session could add and remove factors, and new kinds of
factors lacked the check. The endpoints are found by their declaration.
"""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.api.test_access import operations
from tests.support.client import JsonClient
from tests.support.second_factors import add_app, log_in_with_code
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock

STALE = (401, "insufficient_user_authentication")
NOBODY = "01900000-0000-7000-8000-000000000000"
ALWAYS = {
    ("POST", "/api/v1/auth/mfa/totp"),
    ("DELETE", f"/api/v1/auth/mfa/{NOBODY}"),
    ("POST", "/api/v1/auth/mfa/recovery-codes"),
    ("DELETE", f"/api/v1/users/{NOBODY}/mfa"),
}


def fresh_operations(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, path)
        for method, path, view in operations(app)
        if getattr(view, "fresh_session", None) == "always"
    }


def is_stale(answer: Any) -> bool:
    body = answer.get_json(silent=True) or {}
    return (answer.status_code, body.get("code")) == STALE


@pytest.fixture
def impatient(make_app: Callable[..., Flask]) -> Flask:
    return make_app(STEP_UP_MAX_AGE_SECONDS="5")


def test_all_that_changes_factors_needs_a_fresh_session(app: Flask) -> None:
    assert fresh_operations(app) >= ALWAYS


@pytest.mark.parametrize("body", [None, {}, {"nonsense": 1}])
def test_a_stale_session_is_challenged_before_anything_else_is_looked_at(
    impatient: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock, body: Any
) -> None:
    token = log_in(make_user("boss", roles=["superadmin"])).access_token
    client = JsonClient(impatient, token=token)
    clock.advance(seconds=6)

    let_in = [
        (method, path)
        for method, path in fresh_operations(impatient)
        if not is_stale(client.request(method, path, json=body))
    ]

    assert let_in == []


def test_a_fresh_session_is_let_in(
    impatient: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    boss = make_user("boss", roles=["superadmin"])

    refused = []
    for method, path in sorted(fresh_operations(impatient)):
        client = JsonClient(impatient, token=log_in(boss).access_token)
        if is_stale(client.request(method, path, json={} if method == "POST" else None)):
            refused.append((method, path))

    assert refused == []


def test_the_password_alone_is_not_fresh_once_there_is_a_factor(
    app: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    """A session of a release without factors continues, at the first level."""
    boss = make_user("boss", roles=["superadmin"])
    phone = add_app(log_in(boss), clock)
    clock.advance(seconds=901)
    assert all(is_stale(send(phone.client, op)) for op in fresh_operations(app))

    renewed = log_in_with_code(app, boss, phone.code())

    assert not any(is_stale(send(renewed, op)) for op in fresh_operations(app))


def send(client: SignedInClient, operation: tuple[str, str]) -> Any:
    method, path = operation
    if path == f"/api/v1/auth/mfa/{NOBODY}" or "recovery" in path:
        return client.request(method, path)
    return client.request(method, path, json={} if method == "POST" else None)
