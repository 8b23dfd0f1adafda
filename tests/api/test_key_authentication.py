"""Requests by API keys: what they may do, how they are refused, what is recorded."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.machines import (
    OWN_KEYS,
    basic,
    code_of,
    make_key,
    make_service,
    wrong_secret,
)
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock, rfc3339

VERIFY = "/api/v1/auth/verify"
MakeApp = Callable[..., Flask]


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


def test_a_service_is_described_by_its_key(boss: SignedInClient, client: JsonClient) -> None:
    service = make_service(boss, roles=["moderator"])
    holder = client.as_user(service.key.text)

    me, verified = holder.get("/api/v1/auth/me").get_json(), holder.get(VERIFY).get_json()

    assert me.keys() == {
        *("id", "actor_type", "username", "roles", "permissions", "session_id", "key_id")
    }
    assert (me["id"], me["username"], me["actor_type"]) == (service.id, service.name, "service")
    assert (me["session_id"], me["key_id"]) == (None, service.key.id)
    assert (verified["user_id"], verified["actor_type"]) == (service.id, "service")
    assert (verified["session_id"], verified["key_id"]) == (None, service.key.id)
    assert "users:read" in verified["permissions"] == me["permissions"]
    endless = make_key(boss, service.keys_path, expires_at=None)
    assert client.as_user(endless.text).get(VERIFY).get_json()["expires_at"] is None


def test_a_session_has_no_key(boss: SignedInClient) -> None:
    for path in ("/api/v1/auth/me", VERIFY):
        shown = boss.get(path).get_json()
        assert (shown["actor_type"], shown["key_id"]) == ("user", None)
        assert shown["session_id"] == boss.session_id


def test_a_key_may_what_its_owner_and_its_list_allow(
    boss: SignedInClient, client: JsonClient
) -> None:
    service = make_service(boss, roles=["admin"], permissions=["users:read", "media:*"][:1])
    holder = client.as_user(service.key.text)

    assert holder.get(VERIFY).get_json()["permissions"] == ["users:read"]
    assert holder.get("/api/v1/users/").status_code == 200
    assert code_of(holder.get("/api/v1/roles/")) == (403, "permission_denied")
    boss.patch(service.path, json={"roles": []})
    assert code_of(holder.get("/api/v1/users/")) == (403, "permission_denied")
    boss.patch(service.path, json={"roles": ["moderator"]})
    assert holder.get("/api/v1/users/").status_code == 200
    nothing = make_key(boss, service.keys_path, permissions=[])
    assert client.as_user(nothing.text).get(VERIFY).get_json()["permissions"] == []


def test_a_changed_role_applies_to_the_next_request(
    boss: SignedInClient, client: JsonClient
) -> None:
    boss.post("/api/v1/roles/", json={"name": "robot", "permissions": ["users:read"]})
    service = make_service(boss, roles=["robot"])
    holder = client.as_user(service.key.text)
    assert holder.get("/api/v1/users/").status_code == 200

    boss.put("/api/v1/roles/robot", json={"permissions": []})

    assert code_of(holder.get("/api/v1/users/")) == (403, "permission_denied")


def test_keys_are_refused_in_the_documented_order(
    boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    end = rfc3339(clock.now() + timedelta(hours=1))
    service = make_service(boss, expires_at=end, allowed_networks=["192.0.2.0/24"])
    other = make_service(boss, "other", expires_at=end)
    text = service.key.text

    def refusal(token: str) -> tuple[int, str]:
        return code_of(client.as_user(token).get(VERIFY))

    assert refusal(text) == (403, "network_not_allowed")
    assert refusal(text[:-1] + ("0" if text[-1] != "0" else "1")) == (401, "token_invalid")
    assert refusal(wrong_secret(text)) == (401, "token_invalid")
    assert refusal("uaks_" + "0" * 71) == (401, "token_invalid")
    boss.post(f"{service.path}/suspend")
    clock.advance(hours=2)
    assert refusal(other.key.text) == (401, "token_expired")
    assert refusal(text) == (401, "token_revoked")
    assert refusal(wrong_secret(text)) == (401, "token_invalid")


def test_a_suspended_owner_gets_the_keys_back(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    service = make_service(boss)
    personal = make_key(log_in(robin), OWN_KEYS)
    for text, path in (
        (service.key.text, service.path),
        (personal.text, f"/api/v1/users/{robin.id}"),
    ):
        holder = client.as_user(text)
        assert holder.get(VERIFY).status_code == 200
        boss.post(f"{path}/suspend")
        assert code_of(holder.get(VERIFY)) == (401, "token_revoked")
        boss.post(f"{path}/activate")
        assert holder.get(VERIFY).status_code == 200


def test_a_personal_key_follows_its_user(
    app: Flask, boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """Also a copy of the key that a process or Redis has."""
    robin = make_user("robin", roles=["admin"])
    made = make_key(log_in(robin), OWN_KEYS)
    key = client.as_user(made.text)
    person, users = f"/api/v1/users/{robin.id}", "/api/v1/users/"
    assert key.get(users).status_code == 200

    boss.put(f"{person}/roles", json={"roles": ["user"]})
    assert code_of(key.get(users)) == (403, "permission_denied")
    boss.put(f"{person}/roles", json={"roles": ["admin"]})
    assert key.get(users).status_code == 200
    boss.patch(person, json={"username": "robin-hood"})
    new = {"username": "ada", "email": "ada@example.com"}
    assert key.post(users, json=new).status_code == 201
    row = audit_rows(app, action="user.created")[-1]
    assert (row.actor_type, row.actor_username, str(row.actor_id)) == (
        "user",
        "robin-hood",
        robin.id,
    )
    assert (str(row.key_id), row.session_id) == (made.id, None)
    assert key.get("/api/v1/auth/me").get_json()["username"] == "robin-hood"
    boss.patch(person, json={"must_change_password": True})
    assert code_of(key.get(users)) == (403, "password_change_required")


def test_the_key_of_a_deleted_user_is_unknown_and_a_service_outlives_its_creator(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    creator = make_user("creator", roles=["admin"])
    session = log_in(creator)
    personal, service = make_key(session, OWN_KEYS), make_service(session)
    holders = [client.as_user(personal.text), client.as_user(service.key.text)]
    assert [holder.get(VERIFY).status_code for holder in holders] == [200, 200]

    boss.delete(f"/api/v1/users/{creator.id}")

    assert code_of(holders[0].get(VERIFY)) == (401, "token_invalid")
    assert holders[1].get(VERIFY).status_code == 200


def test_a_user_who_must_change_the_password_has_no_use_of_keys(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    key = client.as_user(make_key(log_in(robin), OWN_KEYS).text)

    boss.patch(f"/api/v1/users/{robin.id}", json={"must_change_password": True})

    assert code_of(key.get(VERIFY)) == (403, "password_change_required")


def test_a_mapped_address_counts_as_ipv4(boss: SignedInClient, client: JsonClient) -> None:
    service = make_service(boss, allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    holder = client.as_user(service.key.text)

    for address, status in (
        ("192.0.2.7", 200),
        ("::ffff:192.0.2.7", 200),
        ("2001:db8::1", 200),
        ("192.0.3.7", 403),
        ("::1", 403),
    ):
        assert holder.from_address(address).get(VERIFY).status_code == status, address


@pytest.mark.parametrize(
    ("forwarded", "is_allowed"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("198.51.100.9, 192.0.2.7", True),
        ("192.0.2.7, 198.51.100.9", False),
        ("unknown", False),
    ],
)
def test_networks_are_judged_by_the_address_from_the_last_trusted_proxy(
    make_app: MakeApp, boss: SignedInClient, forwarded: str, *, is_allowed: bool
) -> None:
    service = make_service(boss, allowed_networks=["192.0.2.0/24"])
    client = JsonClient(make_app(TRUSTED_PROXY_COUNT="1"))
    headers = {"X-Forwarded-For": forwarded}
    grant = {"grant_type": "client_credentials"}

    by_key = client.as_user(service.key.text).get(VERIFY, headers=headers)
    token = client.post(
        "/api/v1/auth/token",
        headers={**headers, **basic(service.id, service.key.text)},
        json=grant,
    )

    expected = (200, 200) if is_allowed else (403, 400)
    assert (by_key.status_code, token.status_code) == expected


def test_no_header_of_a_client_names_its_address(boss: SignedInClient, client: JsonClient) -> None:
    service = make_service(boss, allowed_networks=["192.0.2.0/24"])
    holder = client.as_user(service.key.text)

    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP"):
        value = "for=192.0.2.7" if name == "Forwarded" else "192.0.2.7"
        refused = holder.get(VERIFY, headers={name: value})
        assert code_of(refused) == (403, "network_not_allowed"), name


def test_refusals_of_a_key_are_recorded_once_a_minute_and_reason(
    app: Flask, boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    service = make_service(boss)
    boss.delete(service.key.path)
    holder = client.as_user(service.key.text)

    for _ in range(3):
        holder.get(VERIFY)
    client.as_user(wrong_secret(service.key.text)).get(VERIFY)
    client.as_user("uaks_" + "0" * 71).get(VERIFY)
    clock.advance(seconds=61)
    holder.get(VERIFY)

    rows = audit_rows(app, action="auth.key_refused")
    assert [row.details["reason"] for row in rows] == [
        "token_revoked",
        "token_invalid",
        "token_revoked",
    ]
    assert {(str(row.key_id), row.target_id, row.outcome) for row in rows} == {
        (service.key.id, service.key.id, "failure")
    }


def test_the_use_of_a_key_writes_no_audit_row_and_shows_when_it_was(
    app: Flask, boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    service = make_service(boss)
    before = len(audit_rows(app))
    used_at = clock.now()

    client.as_user(service.key.text).from_address("::ffff:192.0.2.7").get(VERIFY)

    assert len(audit_rows(app)) == before
    shown = boss.get(service.key.path).get_json()
    assert shown["last_used_ip"] == "192.0.2.7"
    account = boss.get(service.path).get_json()
    assert account["last_used_at"] == shown["last_used_at"] is not None
    assert shown["last_used_at"] >= rfc3339(used_at)[:19]
    boss.patch(service.key.path, json={"name": "renamed"})
    assert boss.get(service.key.path).get_json()["last_used_at"] == shown["last_used_at"]
    assert boss.get(service.path).headers["ETag"] == '"1"'


def test_the_use_is_at_most_a_minute_old(
    boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    service = make_service(boss)
    holder = client.as_user(service.key.text)

    def last_used() -> str:
        return str(boss.get(service.key.path).get_json()["last_used_at"])

    holder.get(VERIFY)
    first = last_used()
    clock.advance(seconds=30)
    holder.get(VERIFY)
    assert last_used() == first
    clock.advance(seconds=31)
    holder.get(VERIFY)
    assert last_used() > first


def test_anyone_who_finds_a_key_can_revoke_it(
    app: Flask, boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    service = make_service(boss, allowed_networks=["192.0.2.0/24"])
    personal = make_key(log_in(robin), OWN_KEYS)
    other = make_key(boss, service.keys_path)
    boss.post(f"{service.path}/suspend")

    for text in (service.key.text, f" {personal.text} ", wrong_secret(other.text)):
        assert client.post("/api/v1/auth/revoke", json={"token": text}).status_code == 200

    boss.post(f"{service.path}/activate")
    assert boss.get(service.key.path).get_json()["revoked_reason"] == "leaked"
    for text, status in ((service.key.text, 401), (personal.text, 401), (other.text, 200)):
        assert client.as_user(text).get(VERIFY).status_code == status
    assert {event.data["reason"] for event in events(app, type_="api_key.revoked")} == {"leaked"}


def test_a_key_can_be_burned_while_personal_keys_are_disabled(
    make_app: MakeApp, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """It was accepted again as soon as they were enabled."""
    key = make_key(log_in(make_user("robin")), OWN_KEYS)
    disabled = JsonClient(make_app(FEATURE_PERSONAL_API_KEYS="false"))

    assert disabled.post("/api/v1/auth/revoke", json={"token": key.text}).status_code == 200

    assert code_of(client.as_user(key.text).get(VERIFY)) == (401, "token_revoked")


@pytest.mark.parametrize("owner", ["service", "user"])
def test_introspection_describes_keys(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn, owner: str
) -> None:
    robin = make_user("robin", roles=["moderator"])
    if owner == "service":
        service = make_service(boss, roles=["moderator"], allowed_networks=["192.0.2.0/24"])
        key, owner_id, name = service.key, service.id, service.name
    else:
        key, owner_id, name = make_key(log_in(robin), OWN_KEYS, expires_at=None), robin.id, "robin"

    found = boss.post("/api/v1/auth/introspect", json={"token": key.text}).get_json()

    assert (found["active"], found["token_type"]) == (True, "api_key")
    assert (found["sub"], found["sid"], found["jti"]) == (owner_id, key.id, key.id)
    assert (found["username"], found["actor_type"]) == (name, owner)
    assert "users:read" in found["scope"].split(" ")
    assert found["roles"] == ["moderator"]
    always = {
        *("active", "sub", "sid", "jti", "username", "actor_type", "scope", "roles"),
        *("token_type", "iat", "iss", "aud"),
    }
    of_service = {"client_id", "allowed_networks", "exp"} if owner == "service" else set()
    assert found.keys() == always | of_service


def limited(make_app: MakeApp, **more: str) -> Flask:
    return make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="5/minute", **more)


def test_services_count_by_their_account_and_personal_keys_with_their_user(
    make_app: MakeApp, boss: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    session = log_in(make_user("robin"))
    personal = make_key(session, OWN_KEYS)
    service = make_service(boss)
    second = make_key(boss, service.keys_path)
    anybody = JsonClient(limited(make_app, RATE_LIMIT_SERVICE="10/minute"))

    def statuses(tokens: list[str]) -> list[int]:
        return [anybody.as_user(token).get(VERIFY).status_code for token in tokens]

    assert statuses([service.key.text, second.text] * 5) == [200] * 10
    refused = anybody.as_user(second.text).get(VERIFY)
    assert code_of(refused) == (429, "rate_limited")
    assert refused.headers["X-RateLimit-Limit"] == "10"
    assert int(refused.headers["Retry-After"]) > 0
    assert session.token is not None
    assert statuses([personal.text, session.token] * 2) == [200] * 4
    assert statuses([session.token, personal.text]) == [200, 429]


def test_a_limited_key_is_still_valid(
    make_app: MakeApp, boss: SignedInClient, client: JsonClient
) -> None:
    """Clients drop a key that is answered with 401."""
    service = make_service(boss)
    holder = JsonClient(limited(make_app, RATE_LIMIT_SERVICE="1/day"), token=service.key.text)
    holder.get(VERIFY)

    assert code_of(holder.get(VERIFY)) == (429, "rate_limited")
    assert client.as_user(service.key.text).get(VERIFY).status_code == 200


def test_what_refuses_a_key_comes_before_the_limit(make_app: MakeApp, boss: SignedInClient) -> None:
    service = make_service(boss, allowed_networks=["192.0.2.0/24"])
    app = limited(make_app, RATE_LIMIT_SERVICE="2/minute")
    holder = JsonClient(app, token=service.key.text)

    assert {code_of(holder.get(VERIFY)) for _ in range(5)} == {(403, "network_not_allowed")}


def test_a_wrong_secret_does_not_use_the_limit_of_the_account(
    make_app: MakeApp, boss: SignedInClient
) -> None:
    service = make_service(boss)
    app = limited(make_app, RATE_LIMIT_SERVICE="3/minute")
    holder = JsonClient(app, token=service.key.text)
    attacker = JsonClient(app, token=wrong_secret(service.key.text), ip_address="192.0.2.66")

    codes = [attacker.get(VERIFY).status_code for _ in range(8)]

    assert codes == [401] * 5 + [429] * 3
    assert [holder.get(VERIFY).status_code for _ in range(3)] == [200] * 3
