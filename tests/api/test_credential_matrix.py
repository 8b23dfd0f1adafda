"""Which kinds of credential each endpoint takes: the matrix, generated from the routes.

An endpoint that declares nothing fails. So does one that answers a kind in another way than it
declares, and one that crashes on it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from tests.api.test_access import NOBODY, operations, send
from tests.support.client import JsonClient
from tests.support.machines import OWN_KEYS, code_of, make_key, make_service
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.api.credentials import Credentials

KINDS = ("session", "personal_key", "service_key", "client_token")
# The error for each kind where it is not accepted; None where it is.
REFUSALS: dict[tuple[Credentials, str], str] = {
    (Credentials.INTERACTIVE, "personal_key"): "interactive_session_required",
    (Credentials.INTERACTIVE, "service_key"): "user_required",
    (Credentials.INTERACTIVE, "client_token"): "user_required",
    (Credentials.NAMED, "personal_key"): "interactive_session_required",
    (Credentials.NAMED, "service_key"): "interactive_session_required",
    (Credentials.NAMED, "client_token"): "interactive_session_required",
    (Credentials.PEOPLE, "service_key"): "user_required",
    (Credentials.PEOPLE, "client_token"): "user_required",
}
INTERACTIVE = {
    "/api/v1/auth/change-email",
    "/api/v1/auth/change-password",
    "/api/v1/auth/logout",
    "/api/v1/auth/sessions",
    "/api/v1/users/me/export",
    OWN_KEYS,
}


# What is about one's own person and credentials: no key reaches it, whatever it may do.
OWN_PERSON = [
    *(("POST", f"/api/v1/auth/{name}") for name in ("change-password", "change-email", "logout")),
    ("GET", "/api/v1/auth/sessions"),
    ("DELETE", "/api/v1/auth/sessions"),
    ("DELETE", f"/api/v1/auth/sessions/{NOBODY}"),
    *((method, "/api/v1/users/me") for method in ("PUT", "PATCH", "DELETE")),
    ("GET", "/api/v1/users/me/export"),
    *((method, OWN_KEYS) for method in ("GET", "POST", "DELETE")),
    *((method, f"{OWN_KEYS}{NOBODY}") for method in ("GET", "PATCH", "DELETE")),
    ("POST", f"{OWN_KEYS}{NOBODY}/rotate"),
    ("GET", "/api/v1/auth/mfa"),
    ("POST", "/api/v1/auth/mfa/totp"),
    ("POST", f"/api/v1/auth/mfa/totp/{NOBODY}/confirm"),
    *((method, f"/api/v1/auth/mfa/{NOBODY}") for method in ("PATCH", "DELETE")),
    ("POST", "/api/v1/auth/mfa/recovery-codes"),
    ("POST", "/api/v1/auth/passkeys/options"),
    ("POST", "/api/v1/auth/passkeys"),
    ("POST", "/api/v1/auth/step-up"),
    ("POST", "/api/v1/auth/step-up/options"),
]
# What a key may read of its owner, and a service of itself.
REACHED = {
    "/api/v1/auth/me": {"personal_key": 200, "service_key": 200, "client_token": 200},
    "/api/v1/auth/verify": {"personal_key": 200, "service_key": 200, "client_token": 200},
    "/api/v1/users/me": {"personal_key": 200, "service_key": 403, "client_token": 403},
}


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


def client_token(client: JsonClient, client_id: str, secret: str) -> str:
    body = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
    }
    token: str = client.post("/api/v1/auth/token", json=body).get_json()["access_token"]
    return token


@pytest.fixture
def holders(boss: SignedInClient, client: JsonClient) -> dict[str, JsonClient]:
    """Return a client for each kind of credential; all of them hold every permission."""
    service = make_service(boss, roles=["superadmin"])
    token = client_token(client, service.id, service.key.text)
    return {
        "session": boss,
        "personal_key": client.as_user(make_key(boss, OWN_KEYS).text),
        "service_key": client.as_user(service.key.text),
        "client_token": client.as_user(token),
    }


def guarded(app: Flask) -> Iterator[tuple[str, str, Any]]:
    return (each for each in operations(app) if each[2].access != "public")


def test_every_endpoint_declares_its_credentials(app: Flask) -> None:
    silent = [path for _, path, view in operations(app) if not hasattr(view, "credentials")]
    declared = {path for _, path, view in guarded(app) if view.credentials == "interactive"}

    assert silent == []
    assert declared >= INTERACTIVE


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_accepted_where_it_is_declared(
    app: Flask, holders: dict[str, JsonClient], kind: str
) -> None:
    wrong = {}
    # The session would end with a log-out, and the user with a deletion: they come last.
    for method, path, view in sorted(guarded(app), key=lambda each: (each[1], each[0])):
        if kind == "session" and (method == "DELETE" or path.endswith("/logout")):
            continue
        answer = send(holders[kind], method, path)
        code = (answer.get_json(silent=True) or {}).get("code", "")
        expected = REFUSALS.get((view.credentials, kind))
        if answer.status_code >= 500 or answer.status_code == 401:
            wrong[method, path] = (answer.status_code, code)
        elif (expected or "") != (code if code in set(REFUSALS.values()) else ""):
            wrong[method, path] = (answer.status_code, code)

    assert wrong == {}


@pytest.mark.parametrize("kind", ["personal_key", "service_key", "client_token"])
def test_keys_reach_nothing_of_the_own_person(
    app: Flask, holders: dict[str, JsonClient], kind: str
) -> None:
    """By name, so that no declaration at an endpoint can open one."""
    served = {(method, path) for method, path, _ in operations(app)}
    expected = "interactive_session_required" if kind == "personal_key" else "user_required"

    answers = {each: code_of(send(holders[kind], *each)) for each in OWN_PERSON}
    reached = {path: holders[kind].get(path).status_code for path in REACHED}

    assert set(OWN_PERSON) <= served
    assert {each: found for each, found in answers.items() if found != (403, expected)} == {}
    assert reached == {path: statuses[kind] for path, statuses in REACHED.items()}


@pytest.mark.parametrize("death", ["revoked", "suspended", "elsewhere", "deleted", "expired"])
def test_an_invalid_key_passes_no_guard(
    app: Flask, boss: SignedInClient, client: JsonClient, clock: Any, death: str
) -> None:
    """One path without a check would be enough for an attacker."""
    service = make_service(boss, roles=["superadmin"], allowed_networks=["127.0.0.0/8"])
    token = client_token(client, service.id, service.key.text)
    holders = [client.as_user(service.key.text), client.as_user(token)]
    assert [holder.get("/api/v1/auth/verify").status_code for holder in holders] == [200, 200]
    if death == "revoked":
        boss.delete(service.key.path)
    elif death == "suspended":
        boss.post(f"{service.path}/suspend")
    elif death == "deleted":
        boss.delete(service.path)
    elif death == "expired":
        clock.advance(days=366)
    else:
        holders = [holder.from_address("192.0.2.9") for holder in holders]

    passed = [
        (method, path, number)
        for method, path, _ in guarded(app)
        for number, holder in enumerate(holders)
        if send(holder, method, path).status_code not in (401, 403)
    ]

    assert passed == []
    introspected = boss.post("/api/v1/auth/introspect", json={"token": service.key.text})
    if death not in ("elsewhere", "expired"):
        assert introspected.get_json() == {"active": False}


@pytest.mark.parametrize(
    "death", ["revoked", "suspended", "elsewhere", "deleted", "expired", "disabled", "password"]
)
def test_an_invalid_personal_key_passes_no_guard(
    make_app: Callable[..., Flask],
    boss: SignedInClient,
    client: JsonClient,
    clock: Any,
    make_user: MakeUser,
    log_in: LogIn,
    death: str,
) -> None:
    chief = make_user("chief", roles=["superadmin"])
    session = log_in(chief)
    key = make_key(session, OWN_KEYS, allowed_networks=["127.0.0.0/8"])
    holder = client.as_user(key.text)
    assert holder.get("/api/v1/auth/verify").status_code == 200
    person = f"/api/v1/users/{chief.id}"
    if death == "revoked":
        session.delete(key.path)
    elif death == "suspended":
        boss.post(f"{person}/suspend")
    elif death == "deleted":
        boss.delete(person)
    elif death == "expired":
        clock.advance(days=366)
    elif death == "password":
        boss.patch(person, json={"must_change_password": True})
    elif death == "disabled":
        holder = JsonClient(make_app(FEATURE_PERSONAL_API_KEYS="false"), token=key.text)
    else:
        holder = holder.from_address("192.0.2.9")

    passed = [
        (method, path)
        for method, path, _ in guarded(holder.app)
        if send(holder, method, path).status_code not in (401, 403)
    ]

    assert passed == []


def test_keys_do_not_reach_the_own_person(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """A user needs no permission for the own profile, and a key of the user does."""
    robin = make_user("robin")
    key = client.as_user(make_key(log_in(robin), OWN_KEYS).text)

    assert key.get("/api/v1/users/me").get_json()["id"] == robin.id
    assert key.get("/api/v1/auth/me").get_json()["id"] == robin.id
    assert code_of(key.get(f"/api/v1/users/{robin.id}"))[0] in (403, 404)
    changed = key.patch(f"/api/v1/users/{robin.id}", json={"first_name": "R"})
    assert code_of(changed) == (403, "permission_denied")
    boss_id = boss.get("/api/v1/auth/me").get_json()["id"]
    own = client.as_user(make_key(boss, OWN_KEYS).text)
    suspended = own.post(f"/api/v1/users/{boss_id}/suspend")
    assert code_of(suspended) == (409, "self_action_refused")


def test_only_a_literal_permission_manages_service_accounts(
    boss: SignedInClient, client: JsonClient
) -> None:
    """A key that makes keys would survive its own revocation."""
    named = ["service_accounts:manage", "roles:assign"]
    service = make_service(boss, "maker", roles=["superadmin"], permissions=named)
    others = [
        make_key(boss, service.keys_path, permissions=permissions)
        for permissions in (None, ["*"], ["service_accounts:*"])
    ]
    accounts = "/api/v1/service-accounts/"
    victim = make_service(boss, "victim")

    for other in others:
        refused = client.as_user(other.text).post(accounts, json={"name": "x-1"})
        assert code_of(refused) == (403, "interactive_session_required")
    maker = client.as_user(service.key.text)
    assert maker.post(accounts, json={"name": "x-1"}).status_code == 201
    assert maker.post(victim.keys_path, json={"name": "x"}).status_code == 201
    assert code_of(maker.post(service.keys_path, json={"name": "x"})) == (
        409,
        "self_action_refused",
    )
    for method, path in (("DELETE", service.path), ("POST", f"{service.path}/suspend")):
        assert code_of(maker.request(method, path)) == (409, "self_action_refused")
    token = client.as_user(client_token(client, service.id, service.key.text))
    assert token.post(accounts, json={"name": "x-2"}).status_code == 201


def test_a_personal_key_manages_service_accounts_by_the_literal_permission(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """A key without it is refused before anything is said about the rights of its owner."""
    accounts = "/api/v1/service-accounts/"
    victim = make_service(boss, "victim")
    named, silent = (
        client.as_user(make_key(boss, OWN_KEYS, permissions=permissions).text)
        for permissions in (["service_accounts:manage"], None)
    )
    powerless = client.as_user(make_key(log_in(make_user("robin")), OWN_KEYS).text)
    writes = [
        ("POST", accounts),
        *((method, victim.path) for method in ("PUT", "PATCH", "DELETE")),
        ("POST", f"{victim.path}/suspend"),
        ("POST", f"{victim.path}/activate"),
        *((method, victim.keys_path) for method in ("POST", "DELETE")),
        *((method, victim.key.path) for method in ("PATCH", "DELETE")),
        ("POST", f"{victim.key.path}/rotate"),
        ("DELETE", f"{accounts}{NOBODY}"),
    ]

    for key in (silent, powerless):
        refused = {each: code_of(send(key, *each)) for each in writes}
        assert set(refused.values()) == {(403, "interactive_session_required")}, refused
    assert named.post(accounts, json={"name": "x-1"}).status_code == 201
    made = named.post(victim.keys_path, json={"name": "x"})
    assert made.status_code == 201
    assert made.get_json()["created_by"] == boss.get("/api/v1/auth/me").get_json()["id"]


def test_a_logged_out_session_of_the_same_user_does_not_end_the_key(
    boss: SignedInClient, client: JsonClient
) -> None:
    key = client.as_user(make_key(boss, OWN_KEYS).text)

    assert boss.post("/api/v1/auth/logout", json={"all_sessions": True}).status_code == 204

    assert key.get("/api/v1/auth/verify").status_code == 200
    assert code_of(key.get(f"/api/v1/users/{NOBODY}")) == (404, "not_found")
