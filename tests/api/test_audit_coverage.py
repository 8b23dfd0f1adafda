"""Every audited action has a request that causes it and writes the expected row.

For a new action, add an entry to `CAUSES`: the state before, the request and its row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask

from tests.support.authenticator import NOTHING_WRONG, Authenticator, Wrong
from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.machines import ACCOUNTS, make_service
from tests.support.mailbox import Mailbox
from tests.support.pages import PageReader
from tests.support.passkeys import SIGN_IN, add_passkey, options
from tests.support.second_factors import App, add_app, code_of, mfa_token, set_up_app
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import UserStatus
from userapi.audit.actions import AuditAction
from userapi.clock import ManualClock
from userapi.infrastructure.database import db

CORRELATION = "coverage-1"
HEADERS = {"X-Correlation-ID": CORRELATION, "User-Agent": "tester/1"}
EDITOR = {"name": "editor", "permissions": ["media:read"]}
NEW_PASSWORD = "copper-willow-31-harvest"
EMAIL_CHANGE = {"new_email": "r@example.org", "current_password": PASSWORD}


@dataclass(slots=True)
class World:
    """The state before a cause: a signed-in superadmin, and Robin, a user without permissions."""

    app: Flask
    clock: ManualClock
    chief: MadeUser
    robin: MadeUser
    as_chief: SignedInClient
    log_in: LogIn
    make_user: MakeUser
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def anyone(self) -> JsonClient:
        return JsonClient(self.app)

    def log_robin_in(self) -> SignedInClient:
        if "robin" not in self.facts:
            self.facts["robin"] = self.log_in(self.robin)
        client = self.facts["robin"]
        assert isinstance(client, SignedInClient)
        return client

    def robin_with_app(self) -> App:
        if "app" not in self.facts:
            self.facts["app"] = add_app(self.log_robin_in(), self.clock)
        app = self.facts["app"]
        assert isinstance(app, App)
        return app


def second_step_of(world: World, code: str) -> Any:
    body = {"mfa_token": world.facts["mfa_token"], "code": code}
    return send(world.anyone, "POST", "/api/v1/auth/login/mfa", body)


def token_of_robin(world: World) -> str:
    world.robin_with_app()
    return mfa_token(world.app, world.robin)


def passkey_of_robin(world: World) -> Authenticator:
    authenticator = Authenticator(synced=False)
    add_passkey(world.log_robin_in(), authenticator)
    return authenticator


def sign_in_by_passkey(
    world: World, authenticator: Authenticator, wrong: Wrong = NOTHING_WRONG
) -> Any:
    credential = authenticator.get(options(world.anyone, SIGN_IN), wrong)
    return send(world.anyone, "POST", SIGN_IN, {"credential": credential})


def confirm(world: World, client: JsonClient) -> Any:
    set_up = world.facts["set_up"]
    body = {"code": code_of(set_up["secret"], world.clock)}
    return send(client, "POST", f"/api/v1/auth/mfa/totp/{set_up['id']}/confirm", body)


def factor_path(world: World) -> str:
    return f"/api/v1/auth/mfa/{world.robin_with_app().id}"


def send(client: JsonClient, method: str, path: str, json: Any = None) -> Any:
    return client.request(method, path, json=json, headers=HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A request that causes an action, and its expected row."""

    request: Callable[[World], Any]
    status: int
    before: Callable[[World], object] = lambda world: None
    actor: str | None = "chief"
    target: str | None = "user:robin"
    outcome: str = "success"
    changes: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def user_path(world: World, rest: str = "") -> str:
    return f"/api/v1/users/{world.robin.id}{rest}"


def fail_logins(world: World, times: int) -> None:
    for _ in range(times):
        wrong_login(world.anyone, world)


def wrong_login(client: JsonClient, world: World) -> Any:
    body = {"username": "robin", "password": "wrong"}
    return send(client, "POST", "/api/v1/auth/login", body)


def refresh_and_wait(world: World) -> None:
    token = world.log_robin_in().refresh_token
    send(world.anyone, "POST", "/api/v1/auth/refresh", {"refresh_token": token})
    world.clock.advance(minutes=5)


def mailed_token(world: World, client: JsonClient, endpoint: str, body: Any) -> None:
    send(client, "POST", f"/api/v1/auth/{endpoint}", body)
    world.facts["token"] = Mailbox(world.app).token()


def start_import(world: World) -> None:
    answer = world.as_chief.request(
        "POST",
        "/api/v1/users/import",
        data=b'{"username": "ada", "email": "ada@example.com"}\n',
        content_type="application/x-ndjson",
        headers={"Prefer": "respond-async"},
    )
    world.facts["import"] = answer.headers["Location"]


def make_robot(world: World) -> None:
    service = make_service(world.as_chief, "robot", roles=["moderator"])
    world.facts |= {"robot": service, "account": service.id, "key": service.key.id}


def make_new_robot(world: World) -> Any:
    answer = send(world.as_chief, "POST", ACCOUNTS, {"name": "robot"})
    world.facts["account"] = answer.get_json()["id"]
    return answer


def make_new_key(world: World) -> Any:
    answer = send(world.as_chief, "POST", world.facts["robot"].keys_path, {"name": "second"})
    world.facts["key"] = answer.get_json()["id"]
    return answer


def of_robot(world: World, method: str, rest: str = "", body: Any = None) -> Any:
    return send(world.as_chief, method, f"{world.facts['robot'].path}{rest}", body)


def of_key(world: World, method: str, rest: str = "", body: Any = None) -> Any:
    return send(world.as_chief, method, f"{world.facts['robot'].key.path}{rest}", body)


def suspend_robot(world: World) -> None:
    make_robot(world)
    of_robot(world, "POST", "/suspend")


def revoke_key(world: World) -> None:
    make_robot(world)
    of_key(world, "DELETE")


def token_request(world: World, secret: str) -> Any:
    body = {
        "grant_type": "client_credentials",
        "client_id": world.facts["account"],
        "client_secret": secret,
    }
    return send(world.anyone, "POST", "/api/v1/auth/token", body)


def issue_token(world: World) -> None:
    make_robot(world)
    answer = token_request(world, world.facts["robot"].key.text)
    world.facts["token"] = answer.get_json()["access_token"]


def cancel_bulk_change(world: World) -> Any:
    """Start a bulk change in the console, and cancel it."""
    browser = PageReader(world.app)
    browser.sign_in(world.chief)
    started = browser.post(
        "/users/bulk/run", action="suspend", selected="all", filters="search=robin", expected="1"
    )
    world.facts["bulk"] = started.location
    data = {"csrf_token": browser.token}
    return browser.browser.post(f"{started.location}/cancel", data=data, headers=HEADERS)


CAUSES: dict[str, Cause] = {
    "api_key.created": Cause(
        before=make_robot,
        request=make_new_key,
        status=201,
        target="key",
        details={"name": "second"},
    ),
    "api_key.revoked": Cause(
        before=make_robot,
        request=lambda w: of_key(w, "DELETE"),
        status=204,
        target="key",
        details={"reason": "revoked"},
    ),
    "api_key.revoked (leaked)": Cause(
        before=make_robot,
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/revoke", {"token": w.facts["robot"].key.text}
        ),
        status=200,
        actor=None,
        target="key",
        details={"reason": "leaked"},
    ),
    "api_key.rotated": Cause(
        before=make_robot, request=lambda w: of_key(w, "POST", "/rotate"), status=201, target="key"
    ),
    "api_key.updated": Cause(
        before=make_robot,
        request=lambda w: of_key(w, "PATCH", "", {"name": "other"}),
        status=200,
        target="key",
        changes={"name": ["test", "other"]},
    ),
    "auth.key_refused": Cause(
        before=revoke_key,
        request=lambda w: send(
            w.anyone.as_user(w.facts["robot"].key.text), "GET", "/api/v1/auth/verify"
        ),
        status=401,
        actor=None,
        target="key",
        outcome="failure",
        details={"reason": "token_revoked"},
    ),
    "auth.token_issued": Cause(
        before=make_robot,
        request=lambda w: token_request(w, w.facts["robot"].key.text),
        status=200,
        actor="robot",
        target="account",
        details={"scope_requested": False},
    ),
    "auth.token_issued (wrong)": Cause(
        before=make_robot,
        request=lambda w: token_request(w, "wrong"),
        status=401,
        actor=None,
        target=None,
        outcome="failure",
        details={"error": "invalid_client"},
    ),
    "auth.token_revoked": Cause(
        before=issue_token,
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/revoke", {"token": w.facts["token"]}
        ),
        status=200,
        actor="robot",
        target="account",
    ),
    "service_account.activated": Cause(
        before=suspend_robot,
        request=lambda w: of_robot(w, "POST", "/activate"),
        status=200,
        target="account",
        changes={"status": ["suspended", "active"]},
    ),
    "service_account.created": Cause(
        request=make_new_robot, status=201, target="account", details={"name": "robot"}
    ),
    "service_account.deleted": Cause(
        before=make_robot,
        request=lambda w: of_robot(w, "DELETE"),
        status=204,
        target="account",
        details={"name": "robot"},
    ),
    "service_account.roles_changed": Cause(
        before=make_robot,
        request=lambda w: of_robot(w, "PATCH", "", {"roles": []}),
        status=200,
        target="account",
        changes={"roles": [["moderator"], []]},
    ),
    "service_account.suspended": Cause(
        before=make_robot,
        request=lambda w: of_robot(w, "POST", "/suspend", {"reason": "noise"}),
        status=200,
        target="account",
        changes={"status": ["active", "suspended"]},
        details={"reason": "noise"},
    ),
    "service_account.updated": Cause(
        before=make_robot,
        request=lambda w: of_robot(w, "PATCH", "", {"description": "Converts."}),
        status=200,
        target="account",
        changes={"description": ["", "Converts."]},
    ),
    "audit.read": Cause(
        request=lambda w: send(w.as_chief, "GET", "/api/v1/audit-logs/?action=auth.login"),
        status=200,
        target=None,
        details={"action": "auth.login"},
    ),
    "audit.read (export)": Cause(
        request=lambda w: send(w.as_chief, "GET", "/api/v1/audit-logs/export?outcome=denied"),
        status=200,
        target=None,
        details={"outcome": "denied", "export": "ndjson"},
    ),
    "audit.read (activity)": Cause(
        request=lambda w: send(w.as_chief, "GET", user_path(w, "/activity")),
        status=200,
        target=None,
    ),
    "auth.login": Cause(
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/login", {"username": "robin", "password": PASSWORD}
        ),
        status=200,
        actor="robin",
    ),
    "auth.login (wrong)": Cause(
        request=lambda w: wrong_login(w.anyone, w),
        status=401,
        actor=None,
        outcome="failure",
        details={"reason": "invalid_credentials"},
    ),
    "auth.login (suspended)": Cause(
        before=lambda w: send(w.as_chief, "POST", user_path(w, "/suspend")),
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/login", {"username": "robin", "password": PASSWORD}
        ),
        status=403,
        actor="robin",
        outcome="denied",
        details={"reason": "account_suspended"},
    ),
    "auth.login_blocked": Cause(
        before=lambda w: fail_logins(w, 5),
        request=lambda w: wrong_login(w.anyone, w),
        status=429,
        actor=None,
        outcome="denied",
    ),
    "auth.login (second step)": Cause(
        before=lambda w: w.facts.update(mfa_token=token_of_robin(w)),
        request=lambda w: second_step_of(w, w.robin_with_app().code(1)),
        status=200,
        actor="robin",
        details={
            "method": "password",
            "step": "mfa",
            "factor": "totp",
            "acr": "aal2",
            "amr": ["pwd", "otp", "mfa"],
        },
    ),
    "auth.login (wrong code)": Cause(
        before=lambda w: w.facts.update(mfa_token=token_of_robin(w)),
        request=lambda w: second_step_of(w, "wrong"),
        status=401,
        actor=None,
        outcome="failure",
        details={
            "method": "password",
            "step": "mfa",
            "factor": "recovery_code",
            "reason": "wrong_code",
        },
    ),
    "auth.mfa_required": Cause(
        before=lambda w: w.robin_with_app(),
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/login", {"username": "robin", "password": PASSWORD}
        ),
        status=403,
        actor="robin",
        details={"methods": ["totp", "recovery_code"]},
    ),
    "mfa.factor_added": Cause(
        before=lambda w: w.facts.update(set_up=set_up_app(w.log_robin_in(), name="Phone")),
        request=lambda w: confirm(w, w.log_robin_in()),
        status=200,
        actor="robin",
        details={"type": "totp", "name": "Phone"},
    ),
    "mfa.factor_removed": Cause(
        before=lambda w: w.robin_with_app(),
        request=lambda w: send(w.robin_with_app().client, "DELETE", factor_path(w)),
        status=204,
        actor="robin",
        details={"type": "totp", "name": "Authenticator app"},
    ),
    "mfa.factor_renamed": Cause(
        before=lambda w: w.robin_with_app(),
        request=lambda w: send(
            w.robin_with_app().client, "PATCH", factor_path(w), {"name": "Phone"}
        ),
        status=200,
        actor="robin",
        changes={"name": ["Authenticator app", "Phone"]},
        details={"type": "totp"},
    ),
    "mfa.recovery_codes_created": Cause(
        before=lambda w: w.robin_with_app(),
        request=lambda w: send(
            w.robin_with_app().client, "POST", "/api/v1/auth/mfa/recovery-codes"
        ),
        status=201,
        actor="robin",
    ),
    "mfa.recovery_code_used": Cause(
        before=lambda w: w.facts.update(mfa_token=token_of_robin(w)),
        request=lambda w: second_step_of(w, w.robin_with_app().recovery_codes[0]),
        status=200,
        actor="robin",
        details={"left": 9},
    ),
    "mfa.reset": Cause(
        before=lambda w: w.robin_with_app(),
        request=lambda w: send(w.as_chief, "DELETE", user_path(w, "/mfa")),
        status=204,
        details={"totp": 1, "passkey": 0},
    ),
    "auth.logout": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(w.log_robin_in(), "POST", "/api/v1/auth/logout"),
        status=204,
        actor="robin",
        details={"all_sessions": False},
    ),
    "auth.password_changed": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(
            w.log_robin_in(),
            "POST",
            "/api/v1/auth/change-password",
            {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        ),
        status=200,
        actor="robin",
    ),
    "auth.password_reset": Cause(
        before=lambda w: mailed_token(w, w.anyone, "reset-password", {"email": w.robin.email}),
        request=lambda w: send(
            w.anyone,
            "POST",
            "/api/v1/auth/reset-password/confirm",
            {"token": w.facts["token"], "new_password": NEW_PASSWORD},
        ),
        status=204,
        actor="robin",
    ),
    "auth.password_reset_requested": Cause(
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/reset-password", {"email": w.robin.email}
        ),
        status=202,
        actor=None,
    ),
    "auth.password_reset_requested (nobody)": Cause(
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/reset-password", {"email": "nobody@example.com"}
        ),
        status=202,
        actor=None,
        target=None,
    ),
    "auth.password_reset_requested (for another)": Cause(
        request=lambda w: send(w.as_chief, "POST", user_path(w, "/reset-password")), status=202
    ),
    "auth.permission_denied": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(w.log_robin_in(), "DELETE", user_path(w)),
        status=403,
        actor="robin",
        outcome="denied",
        details={
            "code": "permission_denied",
            "permission": "users:delete",
            "method": "DELETE",
            "endpoint": "users.delete",
        },
    ),
    "auth.refresh": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(
            w.anyone,
            "POST",
            "/api/v1/auth/refresh",
            {"refresh_token": w.log_robin_in().refresh_token},
        ),
        status=200,
        actor="robin",
        target="session",
    ),
    "auth.refresh_reuse_detected": Cause(
        before=refresh_and_wait,
        request=lambda w: send(
            w.anyone,
            "POST",
            "/api/v1/auth/refresh",
            {"refresh_token": w.log_robin_in().refresh_token},
        ),
        status=401,
        actor="robin",
        target="session",
        outcome="denied",
    ),
    "auth.login (passkey)": Cause(
        before=lambda w: w.facts.update(passkey=passkey_of_robin(w)),
        request=lambda w: sign_in_by_passkey(w, w.facts["passkey"]),
        status=200,
        actor="robin",
        details={
            "method": "passkey",
            "step": "passkey",
            "factor": "passkey",
            "acr": "aal2",
            "amr": ["pop", "user", "mfa"],
        },
    ),
    "auth.passkey_clone_suspected": Cause(
        before=lambda w: w.facts.update(passkey=passkey_of_robin(w)),
        request=lambda w: sign_in_by_passkey(w, w.facts["passkey"], Wrong(counter=1)),
        status=401,
        actor=None,
        outcome="denied",
        details={"stored_count": 1},
    ),
    "auth.step_up": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(
            w.log_robin_in(), "POST", "/api/v1/auth/step-up", {"password": PASSWORD}
        ),
        status=200,
        actor="robin",
        target="session",
        details={"acr": "aal1", "amr": ["pwd"], "factor": "password"},
    ),
    "role.created": Cause(
        request=lambda w: send(w.as_chief, "POST", "/api/v1/roles/", EDITOR),
        status=201,
        target="role:editor",
        changes={
            "description": [None, ""],
            "permissions": [None, ["media:read"]],
            "parents": [None, []],
        },
    ),
    "role.deleted": Cause(
        before=lambda w: send(w.as_chief, "POST", "/api/v1/roles/", EDITOR),
        request=lambda w: send(w.as_chief, "DELETE", "/api/v1/roles/editor"),
        status=204,
        target="role:editor",
        changes={
            "description": ["", None],
            "permissions": [["media:read"], None],
            "parents": [[], None],
        },
    ),
    "role.updated": Cause(
        before=lambda w: send(w.as_chief, "POST", "/api/v1/roles/", EDITOR),
        request=lambda w: send(
            w.as_chief, "PUT", "/api/v1/roles/editor", {"permissions": ["media:write"]}
        ),
        status=200,
        target="role:editor",
        changes={"permissions": [["media:read"], ["media:write"]]},
    ),
    "session.revoked": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(w.as_chief, "POST", user_path(w, "/suspend")),
        status=200,
        target="session",
        details={"reason": "account_suspended"},
    ),
    "user.activated": Cause(
        before=lambda w: send(w.as_chief, "POST", user_path(w, "/suspend")),
        request=lambda w: send(w.as_chief, "POST", user_path(w, "/activate"), {"reason": "fine"}),
        status=200,
        changes={"status": ["suspended", "active"]},
        details={"reason": "fine"},
    ),
    "user.created": Cause(
        request=lambda w: send(
            w.as_chief,
            "POST",
            "/api/v1/users/",
            {"username": "ada", "email": "ada@example.com", "password": NEW_PASSWORD},
        ),
        status=201,
        target="user:new",
        details={"roles": ["user"], "status": "active"},
    ),
    "user.deleted": Cause(
        request=lambda w: send(w.as_chief, "DELETE", user_path(w)),
        status=204,
        details={"username": "robin"},
    ),
    "user.deleted (by themselves)": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(
            w.log_robin_in(), "DELETE", "/api/v1/users/me", {"current_password": PASSWORD}
        ),
        status=204,
        actor="robin",
    ),
    "user.email_change_requested": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(w.log_robin_in(), "POST", "/api/v1/auth/change-email", EMAIL_CHANGE),
        status=202,
        actor="robin",
    ),
    "user.email_changed (by themselves)": Cause(
        before=lambda w: mailed_token(w, w.log_robin_in(), "change-email", EMAIL_CHANGE),
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/verify-email", {"token": w.facts["token"]}
        ),
        status=204,
        actor="robin",
        changes={"email": ["robin@example.com", "r@example.org"]},
    ),
    "user.email_verified": Cause(
        before=lambda w: mailed_token(w, w.log_robin_in(), "change-email", EMAIL_CHANGE),
        request=lambda w: send(
            w.anyone, "POST", "/api/v1/auth/verify-email", {"token": w.facts["token"]}
        ),
        status=204,
        actor="robin",
    ),
    "user.exported (by themselves)": Cause(
        before=lambda w: w.log_robin_in(),
        request=lambda w: send(w.log_robin_in(), "GET", "/api/v1/users/me/export"),
        status=200,
        actor="robin",
    ),
    "user.exported": Cause(
        request=lambda w: send(w.as_chief, "GET", "/api/v1/users/export?status=active"),
        status=200,
        target=None,
    ),
    "bulk.cancelled": Cause(
        request=cancel_bulk_change,
        status=303,
        target="bulk",
        details={"action": "suspend", "users": 1, "done": 0},
    ),
    "import.cancelled": Cause(
        before=start_import,
        request=lambda w: send(w.as_chief, "DELETE", w.facts["import"]),
        status=204,
        target="import",
        details={"rows": 1, "done": 0},
    ),
    "user.imported": Cause(
        request=lambda w: w.as_chief.request(
            "POST",
            "/api/v1/users/import",
            data=b'{"username": "ada", "email": "ada@example.com"}\n',
            content_type="application/x-ndjson",
            headers=HEADERS,
        ),
        status=200,
        target="user:new",
    ),
    "user.suspended (in bulk)": Cause(
        request=lambda w: send(
            w.as_chief,
            "POST",
            "/api/v1/users/bulk",
            {"action": "suspend", "user_ids": [w.robin.id], "reason": "spam"},
        ),
        status=200,
        changes={"status": ["active", "suspended"]},
        details={"reason": "spam"},
    ),
    "user.email_changed": Cause(
        request=lambda w: send(w.as_chief, "PATCH", user_path(w), {"email": "r@example.org"}),
        status=200,
        changes={"email": ["robin@example.com", "r@example.org"]},
    ),
    "user.invited": Cause(
        request=lambda w: send(
            w.as_chief, "POST", "/api/v1/users/", {"username": "ada", "email": "ada@example.com"}
        ),
        status=201,
        target="user:new",
    ),
    "user.locked": Cause(
        before=lambda w: fail_logins(w, 4),
        request=lambda w: wrong_login(w.anyone, w),
        status=401,
        actor=None,
    ),
    "user.registered": Cause(
        request=lambda w: send(
            w.anyone,
            "POST",
            "/api/v1/auth/register",
            {"username": "ada", "email": "ada@example.com", "password": NEW_PASSWORD},
        ),
        status=201,
        actor=None,
        target="user:new",
    ),
    "user.roles_changed": Cause(
        request=lambda w: send(w.as_chief, "PUT", user_path(w, "/roles"), {"roles": ["admin"]}),
        status=200,
        changes={"roles": [["user"], ["admin"]]},
    ),
    "user.suspended": Cause(
        request=lambda w: send(w.as_chief, "POST", user_path(w, "/suspend"), {"reason": "spam"}),
        status=200,
        changes={"status": ["active", "suspended"]},
        details={"reason": "spam"},
    ),
    "user.unlocked": Cause(
        before=lambda w: fail_logins(w, 5),
        request=lambda w: send(w.as_chief, "POST", user_path(w, "/unlock")),
        status=200,
    ),
    "user.updated": Cause(
        request=lambda w: send(w.as_chief, "PATCH", user_path(w), {"first_name": "Robin"}),
        status=200,
        changes={"first_name": [None, "Robin"]},
    ),
}

NOT_BY_A_REQUEST = {
    "audit.anchored",  # flask audit anchor
    "audit.pruned",  # flask audit prune
    "key.revoked",  # flask keys revoke
}


@pytest.fixture
def world(app: Flask, clock: ManualClock, make_user: MakeUser, log_in: LogIn) -> World:
    chief = make_user("chief", roles=["superadmin"])
    robin = make_user("robin")
    return World(
        app=app,
        clock=clock,
        chief=chief,
        robin=robin,
        as_chief=log_in(chief),
        log_in=log_in,
        make_user=make_user,
    )


@pytest.mark.parametrize("name", CAUSES)
def test_the_action_leaves_its_row(world: World, name: str) -> None:
    cause, action = CAUSES[name], name.split(" ")[0]
    cause.before(world)
    known = {row.id for row in audit_rows(world.app)}

    answer = cause.request(world)

    assert answer.status_code == cause.status, answer.text
    (row,) = [r for r in audit_rows(world.app, action=action) if r.id not in known]
    assert row.outcome == cause.outcome
    assert row.correlation_id == CORRELATION
    assert (row.ip_address, row.user_agent) == ("127.0.0.1", "tester/1")
    assert row.changes == cause.changes
    assert (row.details or {}) | cause.details == (row.details or {})
    assert _actor_of(row) == _expected_actor(world, cause)
    assert _target_of(row) == _expected_target(world, cause, row)


def _actor_of(row: Any) -> tuple[str, str | None, str | None]:
    return row.actor_type, row.actor_username, str(row.actor_id) if row.actor_id else None


def _expected_actor(world: World, cause: Cause) -> tuple[str, str | None, str | None]:
    if cause.actor is None:
        return "anonymous", None, None
    if cause.actor == "robot":
        return "service", "robot", world.facts["account"]
    user = {"chief": world.chief, "robin": world.robin}[cause.actor]
    return "user", user.username, user.id


def _target_of(row: Any) -> str | None:
    return f"{row.target_type}:{row.target_id}" if row.target_type else None


def _expected_target(world: World, cause: Cause, row: Any) -> str | None:
    if cause.target == "session":
        return f"session:{world.log_robin_in().session_id}"
    if cause.target == "account":
        return f"service_account:{world.facts['account']}"
    if cause.target == "key":
        return f"api_key:{world.facts['key']}"
    if cause.target == "bulk":
        return f"bulk:{world.facts['bulk'].rpartition('/')[2]}"
    if cause.target == "import":
        return f"import:{world.facts['import'].rpartition('/')[2]}"
    if cause.target == "user:robin":
        return f"user:{world.robin.id}"
    if cause.target == "user:new":
        items = world.as_chief.get("/api/v1/users/?search=ada").get_json()["items"]
        return f"user:{items[0]['id']}"
    return cause.target


def test_every_action_is_accounted_for() -> None:
    covered = {name.split(" ")[0] for name in CAUSES}

    assert covered | NOT_BY_A_REQUEST == {str(action) for action in AuditAction}


def test_two_actions_in_one_request_make_two_rows(world: World) -> None:
    known = {row.id for row in audit_rows(world.app)}

    send(world.as_chief, "PATCH", user_path(world), {"first_name": "R", "roles": ["moderator"]})

    rows = [row for row in audit_rows(world.app) if row.id not in known]
    assert sorted(row.action for row in rows) == ["user.roles_changed", "user.updated"]
    assert {row.correlation_id for row in rows} == {CORRELATION}
    assert {row.action: row.changes for row in rows} == {
        "user.updated": {"first_name": [None, "R"]},
        "user.roles_changed": {"roles": [["user"], ["moderator"]]},
    }


def test_secrets_in_metadata_are_masked_at_any_depth(world: World) -> None:
    metadata = {
        "team": "vision",
        "api_key": "k-1",
        "nested": [{"clientSecret": "s-1", "note": "fine"}],
    }
    send(world.as_chief, "PATCH", user_path(world), {"metadata": metadata})

    (row,) = audit_rows(world.app, action="user.updated")

    assert row.changes == {
        "metadata": [
            {},
            {
                "team": "vision",
                "api_key": "***",
                "nested": [{"clientSecret": "***", "note": "fine"}],
            },
        ]
    }


def test_a_switch_with_password_in_its_name_is_no_secret(world: World) -> None:
    send(world.as_chief, "PATCH", user_path(world), {"must_change_password": True})

    (row,) = audit_rows(world.app, action="user.updated")

    assert row.changes == {"must_change_password": [False, True]}


# Refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that is denied to an actor with these roles."""

    roles: list[str]
    request: Callable[[World, JsonClient], Any]
    code: str
    status: int = 403
    member: tuple[str, object] | None = None
    has_target: bool = True


REFUSALS = {
    "no permission": Refusal(
        roles=["user"],
        request=lambda w, c: send(c, "GET", "/api/v1/users/"),
        code="permission_denied",
        member=("permission", "users:read"),
        has_target=False,
    ),
    "no permission to read the log": Refusal(
        roles=["moderator"],
        request=lambda w, c: send(c, "GET", "/api/v1/audit-logs/export"),
        code="permission_denied",
        member=("permission", "audit:read"),
        has_target=False,
    ),
    "an object that is hidden": Refusal(
        roles=["user"],
        request=lambda w, c: send(c, "GET", user_path(w)),
        code="not_found",
        status=404,
        member=("permission", "users:read"),
    ),
    "a field that only administrators write": Refusal(
        roles=["moderator"],
        request=lambda w, c: send(c, "PATCH", user_path(w), {"metadata": {"a": 1}}),
        code="permission_denied",
        member=("permission", "users:update"),
    ),
    "an equal": Refusal(
        roles=["admin"],
        request=lambda w, c: send(c, "DELETE", f"/api/v1/users/{w.facts['equal'].id}"),
        code="insufficient_rank",
        has_target=False,
    ),
    "a role above one's own": Refusal(
        roles=["admin"],
        request=lambda w, c: send(c, "PUT", user_path(w, "/roles"), {"roles": ["superadmin"]}),
        code="permission_escalation",
        member=("missing_permissions", ["*"]),
    ),
    "a password that is due": Refusal(
        roles=["admin", "due"],
        request=lambda w, c: send(c, "GET", user_path(w)),
        code="password_change_required",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_denied_request_is_recorded_and_changes_nothing(world: World, name: str) -> None:
    refusal = REFUSALS[name]
    roles = [role for role in refusal.roles if role != "due"]
    caller = world.make_user("caller", roles=roles, must_change_password="due" in refusal.roles)
    client = world.log_in(caller)
    world.facts["equal"] = world.make_user("equal", roles=["admin"])
    known = {row.id for row in audit_rows(world.app)}

    answer = refusal.request(world, client)

    assert (answer.status_code, answer.get_json()["code"]) == (refusal.status, refusal.code)
    (row,) = [row for row in audit_rows(world.app) if row.id not in known]
    assert (row.action, row.outcome) == ("auth.permission_denied", "denied")
    assert (row.actor_username, row.correlation_id) == ("caller", CORRELATION)
    assert str(row.session_id) == client.session_id
    assert row.details["code"] == refusal.code
    if refusal.member is not None:
        assert row.details[refusal.member[0]] == refusal.member[1]
    if refusal.has_target:
        assert (row.target_type, row.target_id) == ("user", world.robin.id)


def test_what_hides_an_object_does_not_show_in_the_answer(world: World) -> None:
    caller = world.log_in(world.make_user("caller"))

    hidden = caller.get(user_path(world)).get_json()
    unknown = caller.get("/api/v1/users/01900000-0000-7000-8000-000000000000").get_json()

    same = {"type", "title", "status", "detail", "code"}
    assert {k: hidden[k] for k in same} == {k: unknown[k] for k in same}
    assert "permission" not in hidden


def test_a_request_without_a_token_is_not_recorded(world: World) -> None:
    known = len(audit_rows(world.app))

    answer = send(world.anyone, "DELETE", user_path(world))

    assert answer.status_code == 401
    assert len(audit_rows(world.app)) == known


def test_the_rate_limit_bounds_the_rows_that_refusals_make(
    world: World, make_app: Callable[..., Flask]
) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="5/hour")
    client = JsonClient(app, token=world.log_robin_in().access_token)

    statuses = [client.get("/api/v1/users/").status_code for _ in range(9)]

    assert statuses == [403] * 5 + [429] * 4
    assert len(audit_rows(world.app, action="auth.permission_denied")) == 5


@pytest.mark.thorough
def test_a_denial_that_cannot_be_recorded_is_reported_as_an_outage(world: World) -> None:
    """Otherwise requests during such an outage would be missing in the audit log."""
    client = world.log_robin_in()

    with world.app.app_context(), db.engine.begin() as blocking:
        if blocking.dialect.name == "postgresql":  # SQLite is locked by BEGIN alone.
            blocking.exec_driver_sql("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        answer = client.get("/api/v1/users/")

    assert (answer.status_code, answer.get_json()["code"]) == (503, "service_unavailable")
    assert "Retry-After" in answer.headers


def test_a_refused_log_in_names_who_knew_the_password(world: World) -> None:
    pending = world.make_user("pending", status=UserStatus.PENDING)
    body = {"username": "pending", "password": pending.password}

    answer = send(world.anyone, "POST", "/api/v1/auth/login", body)

    (row,) = [r for r in audit_rows(world.app, action="auth.login") if r.outcome == "denied"]
    assert answer.get_json()["code"] == "account_pending"
    assert (row.actor_username, row.details["reason"]) == ("pending", "account_pending")
