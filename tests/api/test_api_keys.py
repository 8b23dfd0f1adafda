"""API keys: creation, lists, rotation, revocation, expiry, limits."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.machines import ACCOUNTS, OWN_KEYS, code_of, make_key, make_service
from tests.support.mailbox import Mailbox, plain_text, tokens_in
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock, rfc3339
from userapi.infrastructure.database import reading, table_of
from userapi.machines.models import ApiKey
from userapi.wiring.services import Services

VERIFY = "/api/v1/auth/verify"
GRANT = "client_credentials"
MakeApp = Callable[..., Flask]


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


@pytest.fixture
def robin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("robin", roles=["moderator"]))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_key_is_shown_once_and_stored_as_a_digest(
    app: Flask, robin: SignedInClient, client: JsonClient
) -> None:
    body = {"name": "laptop", "permissions": ["users:read"], "allowed_networks": ["127.0.0.0/8"]}
    created = robin.post(OWN_KEYS, json=body)

    made = created.get_json()
    text = made.pop("key")
    assert created.status_code == 201
    assert text.startswith("uakp_") and text.endswith(made["hint"]) and len(text) == 76
    assert (made["owner_type"], made["status"], made["name"]) == ("user", "active", "laptop")
    assert made["permissions"] == ["users:read"]
    assert made["created_by"] == made["owner_id"]
    assert at(made["expires_at"]) - at(made["created_at"]) == timedelta(days=365)
    shown = robin.get(f"{OWN_KEYS}{made['id']}").get_json()
    assert shown == made
    assert robin.get(OWN_KEYS).get_json() == {"items": [made]}
    with app.app_context(), reading() as connection:
        rows = connection.execute(table_of(ApiKey).select()).all()
    assert text not in repr(rows)
    assert client.as_user(text).get(VERIFY).status_code == 200
    for row in (*audit_rows(app), *events(app)):
        assert text[-50:] not in repr(row)


def test_keys_are_listed_newest_first_and_by_status(robin: SignedInClient) -> None:
    first, second = make_key(robin, OWN_KEYS), make_key(robin, OWN_KEYS)
    assert robin.delete(first.path).status_code == 204

    def ids(**query: str) -> list[str]:
        return [item["id"] for item in robin.get(OWN_KEYS, query=query).get_json()["items"]]

    assert ids() == [second.id, first.id]
    assert ids(status="active") == [second.id]
    assert ids(status="revoked") == [first.id]
    assert ids(status="expired") == []


def test_a_revoked_key_is_refused_and_stays_revoked(
    app: Flask, robin: SignedInClient, client: JsonClient
) -> None:
    key = make_key(robin, OWN_KEYS)
    holder = client.as_user(key.text)
    assert holder.get(VERIFY).status_code == 200

    assert robin.delete(key.path).status_code == 204
    assert robin.delete(key.path).status_code == 204

    assert code_of(holder.get(VERIFY)) == (401, "token_revoked")
    shown = robin.get(key.path).get_json()
    assert (shown["status"], shown["revoked_reason"]) == ("revoked", "revoked")
    assert len(audit_rows(app, action="api_key.revoked")) == 1
    (event,) = events(app, type_="api_key.revoked")
    assert event.data["reason"] == "revoked"
    assert (event.subject, event.data["owner_id"]) == (shown["owner_id"], shown["owner_id"])
    assert event.data["key_id"] == key.id


def test_all_keys_are_revoked_at_once(robin: SignedInClient, client: JsonClient) -> None:
    keys = [make_key(robin, OWN_KEYS) for _ in range(3)]
    robin.delete(keys[0].path)

    assert robin.delete(OWN_KEYS).get_json() == {"revoked": 2}
    for key in keys:
        assert code_of(client.as_user(key.text).get(VERIFY)) == (401, "token_revoked")


def test_a_key_changes_and_the_next_request_obeys(
    app: Flask, robin: SignedInClient, client: JsonClient
) -> None:
    key = make_key(robin, OWN_KEYS)
    holder = client.as_user(key.text)
    assert holder.get("/api/v1/users/").status_code == 200

    limited = robin.patch(key.path, json={"name": "other", "permissions": ["stats:read"]})
    assert code_of(holder.get("/api/v1/users/")) == (403, "permission_denied")
    away = robin.patch(key.path, json={"allowed_networks": ["192.0.2.0/24"]})
    assert code_of(holder.get(VERIFY)) == (403, "network_not_allowed")
    lifted = robin.patch(key.path, json={"allowed_networks": None, "permissions": None})

    assert (limited.get_json()["name"], away.get_json()["allowed_networks"]) == (
        "other",
        ["192.0.2.0/24"],
    )
    assert lifted.get_json()["allowed_networks"] is None
    assert holder.get("/api/v1/users/").status_code == 200
    assert len(audit_rows(app, action="api_key.updated")) == 3


def test_a_key_cannot_list_what_its_owner_does_not_hold(
    boss: SignedInClient, robin: SignedInClient
) -> None:
    for body in ({"permissions": ["users:delete"]}, {"permissions": ["*"]}):
        refused = robin.post(OWN_KEYS, json={"name": "x", **body})
        assert code_of(refused) == (403, "permission_escalation")
    key = make_key(robin, OWN_KEYS)
    changed = robin.patch(key.path, json={"permissions": ["users:read", "roles:manage"]})
    assert code_of(changed) == (403, "permission_escalation")
    assert changed.get_json()["missing_permissions"] == ["roles:manage"]
    service = make_service(boss)
    refused = boss.post(service.keys_path, json={"name": "x", "permissions": ["users:read"]})
    assert code_of(refused) == (403, "permission_escalation")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"name": " "}, "name", "blank"),
        ({"name": "\u3164"}, "name", "blank"),
        ({"name": "x" * 101}, "name", "too_long"),
        ({"permissions": ["nothing"]}, "permissions.0", "invalid_permission"),
        ({"allowed_networks": ["10.0.0.1/8"]}, "allowed_networks.0", "invalid_network"),
        ({"permissions": ["users:read"] * 501}, "permissions", "too_long"),
        ({"allowed_networks": []}, "allowed_networks", "invalid_network"),
        ({"allowed_networks": ["192.0.2.0/24"] * 21}, "allowed_networks", "invalid_network"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "in_the_past"),
        ({"expires_at": 5}, "expires_at", "wrong_type"),
    ],
)
def test_invalid_fields_are_named(
    robin: SignedInClient, body: dict[str, Any], field: str, code: str
) -> None:
    answer = robin.post(OWN_KEYS, json={"name": "x", **body})

    assert code_of(answer) == (422, "validation_failed")
    assert [(e["field"], e["code"]) for e in answer.get_json()["errors"]] == [(field, code)]


def test_a_given_end_is_kept_and_null_is_no_end(robin: SignedInClient) -> None:
    end = "2031-02-03T04:05:06Z"

    kept = robin.post(OWN_KEYS, json={"name": "x", "expires_at": end}).get_json()
    never = robin.post(OWN_KEYS, json={"name": "x", "expires_at": None}).get_json()

    assert kept["expires_at"] == end
    assert never["expires_at"] is None


def test_the_maximum_lifetime_bounds_every_end(
    make_app: MakeApp, robin: SignedInClient, clock: ManualClock
) -> None:
    limited = JsonClient(make_app(API_KEY_MAX_DAYS="30"), token=robin.token)

    left_out = limited.post(OWN_KEYS, json={"name": "x"}).get_json()
    assert at(left_out["expires_at"]) - at(left_out["created_at"]) == timedelta(days=30)
    for end in (None, rfc3339(clock.now() + timedelta(days=31))):
        refused = limited.post(OWN_KEYS, json={"name": "x", "expires_at": end})
        assert refused.get_json()["errors"][0]["code"] == "expires_too_late"
    within = rfc3339(clock.now() + timedelta(days=29))
    assert limited.post(OWN_KEYS, json={"name": "x", "expires_at": within}).status_code == 201


def test_without_a_default_lifetime_keys_have_no_end(
    make_app: MakeApp, robin: SignedInClient
) -> None:
    endless = JsonClient(make_app(API_KEY_DEFAULT_DAYS="0"), token=robin.token)

    assert endless.post(OWN_KEYS, json={"name": "x"}).get_json()["expires_at"] is None


def test_an_expired_key_is_refused_and_cannot_change(
    robin: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    end = rfc3339(clock.now() + timedelta(minutes=5))
    key = make_key(robin, OWN_KEYS, expires_at=end)
    assert client.as_user(key.text).get(VERIFY).get_json()["expires_at"] == end

    clock.advance(minutes=6)

    assert code_of(client.as_user(key.text).get(VERIFY)) == (401, "token_expired")
    assert robin.get(key.path).get_json()["status"] == "expired"
    assert code_of(robin.patch(key.path, json={"name": "y"})) == (409, "key_not_active")
    assert code_of(robin.post(f"{key.path}/rotate")) == (409, "key_not_active")
    assert robin.delete(key.path).status_code == 204
    assert robin.get(key.path).get_json()["status"] == "expired"


def test_a_rotation_keeps_what_the_key_may_do_and_overlaps(
    app: Flask, robin: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    old = make_key(
        robin, OWN_KEYS, permissions=["users:read"], allowed_networks=["127.0.0.1"], name="ci"
    )
    clock.advance(minutes=5)

    answer = robin.post(f"{old.path}/rotate", json={"overlap_seconds": 600})

    new = answer.get_json()
    before = robin.get(old.path).get_json()
    assert answer.status_code == 201
    assert (new["rotated_from"], before["replaced_by"]) == (old.id, new["id"])
    assert (new["name"], new["permissions"], new["allowed_networks"]) == (
        "ci",
        ["users:read"],
        ["127.0.0.1"],
    )
    assert at(new["expires_at"]) - at(new["created_at"]) == timedelta(days=365)
    assert at(before["expires_at"]) == at(new["created_at"]) + timedelta(minutes=10)
    for text in (old.text, new["key"]):
        assert client.as_user(text).get(VERIFY).status_code == 200
    (event,) = events(app, type_="api_key.rotated")
    assert (event.data["key_id"], event.data["replaced_by"]) == (old.id, new["id"])
    assert event.data["expires_at"] == before["expires_at"]
    assert code_of(robin.post(f"{old.path}/rotate")) == (409, "key_already_rotated")
    clock.advance(minutes=11)
    assert code_of(client.as_user(old.text).get(VERIFY)) == (401, "token_expired")
    assert client.as_user(new["key"]).get(VERIFY).status_code == 200


def test_a_rotation_without_overlap_revokes_the_key(
    app: Flask, robin: SignedInClient, client: JsonClient
) -> None:
    old = make_key(robin, OWN_KEYS)
    assert client.as_user(old.text).get(VERIFY).status_code == 200

    robin.post(f"{old.path}/rotate", json={"overlap_seconds": 0})

    assert code_of(client.as_user(old.text).get(VERIFY)) == (401, "token_revoked")
    assert robin.get(old.path).get_json()["revoked_reason"] == "rotated"
    assert code_of(robin.post(f"{old.path}/rotate")) == (409, "key_already_rotated")
    types = [event.type for event in events(app) if event.type.startswith("api_key")]
    assert types == ["api_key.created", "api_key.rotated", "api_key.revoked"]


def test_the_new_key_ends_as_asked_and_the_old_one_after_a_day(
    robin: SignedInClient, clock: ManualClock
) -> None:
    end = "2031-02-03T04:05:06Z"
    kept, endless, given = (make_key(robin, OWN_KEYS, expires_at=end) for _ in range(3))

    never = robin.post(f"{endless.path}/rotate", json={"expires_at": None}).get_json()
    exact = robin.post(f"{given.path}/rotate", json={"expires_at": end}).get_json()
    past = robin.post(f"{kept.path}/rotate", json={"expires_at": "2020-01-01T00:00:00Z"})
    plain = robin.post(f"{kept.path}/rotate").get_json()

    assert (never["expires_at"], exact["expires_at"]) == (None, end)
    assert past.get_json()["errors"][0]["code"] == "in_the_past"
    old = robin.get(kept.path).get_json()
    assert at(old["expires_at"]) == at(plain["created_at"]) + timedelta(days=1)
    life = at(end) - at(old["created_at"])
    assert at(plain["expires_at"]) - at(plain["created_at"]) == life


def test_the_maximum_lifetime_bounds_rotated_keys(
    make_app: MakeApp, robin: SignedInClient, clock: ManualClock
) -> None:
    old = make_key(robin, OWN_KEYS, expires_at=None)
    limited = JsonClient(make_app(API_KEY_MAX_DAYS="30"), token=robin.token)

    refused = limited.post(f"{old.path}/rotate", json={"expires_at": None})
    new = limited.post(f"{old.path}/rotate").get_json()

    assert refused.get_json()["errors"][0]["code"] == "expires_too_late"
    assert at(new["expires_at"]) - at(new["created_at"]) == timedelta(days=30)


def test_a_rotated_key_stays_rotated_after_its_overlap(
    robin: SignedInClient, clock: ManualClock
) -> None:
    old = make_key(robin, OWN_KEYS)
    robin.post(f"{old.path}/rotate", json={"overlap_seconds": 60})

    clock.advance(seconds=61)

    assert robin.get(old.path).get_json()["status"] == "expired"
    assert code_of(robin.post(f"{old.path}/rotate")) == (409, "key_already_rotated")
    assert code_of(robin.patch(old.path, json={"name": "x"})) == (409, "key_not_active")


def test_a_rotation_in_the_overlap_can_be_cut_short(
    app: Flask, robin: SignedInClient, client: JsonClient
) -> None:
    old = make_key(robin, OWN_KEYS)
    new = robin.post(f"{old.path}/rotate").get_json()

    assert robin.delete(old.path).status_code == 204

    shown = robin.get(old.path).get_json()
    assert (shown["revoked_reason"], shown["replaced_by"]) == ("revoked", new["id"])
    assert code_of(client.as_user(old.text).get(VERIFY)) == (401, "token_revoked")
    assert client.as_user(new["key"]).get(VERIFY).status_code == 200
    (event,) = events(app, type_="api_key.revoked")
    assert event.data["replaced_by"] == new["id"]


def test_keys_of_a_suspended_account_are_made_and_rotated(
    boss: SignedInClient, client: JsonClient
) -> None:
    """They are accepted once the account is active again."""
    service = make_service(boss)
    boss.post(f"{service.path}/suspend")

    made = make_key(boss, service.keys_path)
    rotated = boss.post(f"{service.key.path}/rotate", json={"overlap_seconds": 0})

    texts = [made.text, rotated.get_json()["key"]]
    assert {code_of(client.as_user(text).get(VERIFY)) for text in texts} == {(401, "token_revoked")}
    boss.post(f"{service.path}/activate")
    assert [client.as_user(text).get(VERIFY).status_code for text in texts] == [200, 200]


def test_networks_are_shown_in_one_form(robin: SignedInClient) -> None:
    given = ["::ffff:192.0.2.0/120", "192.0.2.0/24", "2001:DB8::/32", "192.0.2.9", "192.0.2.9/32"]

    made = robin.post(OWN_KEYS, json={"name": "x", "allowed_networks": given}).get_json()

    assert made["allowed_networks"] == [
        "192.0.2.0/24",
        "2001:db8::/32",
        "192.0.2.9",
        "192.0.2.9/32",
    ]


def test_a_key_has_every_member(boss: SignedInClient) -> None:
    service = make_service(boss, expires_at=None)

    shown = boss.get(service.key.path).get_json()

    assert {name: value for name, value in shown.items() if value is None} == dict.fromkeys(
        (
            *("permissions", "allowed_networks", "expires_at", "last_used_at", "last_used_ip"),
            *("revoked_at", "revoked_reason", "rotated_from", "replaced_by"),
        )
    )
    assert shown.keys() == {
        *("id", "name", "hint", "owner_type", "owner_id", "permissions", "allowed_networks"),
        *("status", "created_at", "created_by", "expires_at", "last_used_at", "last_used_ip"),
        *("revoked_at", "revoked_reason", "rotated_from", "replaced_by"),
    }
    assert (shown["owner_type"], shown["owner_id"]) == ("service", service.id)


def test_a_repeated_rotation_returns_the_same_key_again(
    robin: SignedInClient, client: JsonClient
) -> None:
    """Its reply may have been lost, and the key is shown nowhere else."""
    old = make_key(robin, OWN_KEYS)
    headers, body = {"Idempotency-Key": "one-rotation"}, {"overlap_seconds": 0}

    first, again = (robin.post(f"{old.path}/rotate", json=body, headers=headers) for _ in range(2))
    other = robin.post(f"{old.path}/rotate", json={"overlap_seconds": 5}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.get_data() == first.get_data()
    assert client.as_user(again.get_json()["key"]).get(VERIFY).status_code == 200
    assert code_of(other) == (422, "idempotency_key_reused")
    assert code_of(robin.post(f"{old.path}/rotate", json=body)) == (409, "key_already_rotated")


def test_keys_with_a_former_prefix_continue_to_work(
    make_app: MakeApp, boss: SignedInClient, client: JsonClient
) -> None:
    made = make_service(boss)
    renamed = make_app(API_KEY_PREFIX="aima1")
    holder = JsonClient(renamed, token=made.key.text)
    credentials = {"client_id": made.id, "client_secret": made.key.text}

    new = JsonClient(renamed, token=boss.token).post(f"{made.key.path}/rotate").get_json()
    token = holder.post("/api/v1/auth/token", json={"grant_type": GRANT, **credentials})
    known = JsonClient(renamed, token=boss.token).post(
        "/api/v1/auth/introspect", json={"token": made.key.text}
    )

    assert made.key.text.startswith("uaks_") and new["key"].startswith("aima1s_")
    assert holder.get(VERIFY).status_code == token.status_code == 200
    assert known.get_json()["active"] is True
    assert client.as_user(new["key"]).get(VERIFY).status_code == 200


@pytest.mark.parametrize("overlap", [-1, 604801, 1.5, "60", True])
def test_an_overlap_is_at_most_a_week(robin: SignedInClient, overlap: object) -> None:
    key = make_key(robin, OWN_KEYS)

    answer = robin.post(f"{key.path}/rotate", json={"overlap_seconds": overlap})

    assert code_of(answer) == (422, "validation_failed")


def test_the_own_end_of_a_key_comes_before_the_overlap(
    robin: SignedInClient, clock: ManualClock
) -> None:
    end = rfc3339(clock.now() + timedelta(minutes=5))
    key = make_key(robin, OWN_KEYS, expires_at=end)

    robin.post(f"{key.path}/rotate", json={"overlap_seconds": 3600})

    assert robin.get(key.path).get_json()["expires_at"] == end


def test_the_number_of_active_keys_is_limited(make_app: MakeApp, robin: SignedInClient) -> None:
    limited = JsonClient(make_app(API_KEY_MAX_PER_OWNER="2"), token=robin.token)
    first = make_key(limited, OWN_KEYS)
    make_key(limited, OWN_KEYS)

    assert code_of(limited.post(OWN_KEYS, json={"name": "x"})) == (409, "key_limit_reached")
    assert code_of(limited.post(f"{first.path}/rotate")) == (409, "key_limit_reached")
    rotated = limited.post(f"{first.path}/rotate", json={"overlap_seconds": 0})
    assert rotated.status_code == 201
    limited.delete(f"{OWN_KEYS}{rotated.get_json()['id']}")
    assert limited.post(OWN_KEYS, json={"name": "x"}).status_code == 201


def test_personal_keys_can_be_disabled(
    make_app: MakeApp, robin: SignedInClient, client: JsonClient
) -> None:
    key = make_key(robin, OWN_KEYS)
    assert client.as_user(key.text).get(VERIFY).status_code == 200
    disabled = JsonClient(make_app(FEATURE_PERSONAL_API_KEYS="false"), token=robin.token)

    assert code_of(disabled.post(OWN_KEYS, json={"name": "x"})) == (403, "personal_keys_disabled")
    rotated = disabled.post(f"{key.path}/rotate")
    assert code_of(rotated) == (403, "personal_keys_disabled")
    assert [item["id"] for item in disabled.get(OWN_KEYS).get_json()["items"]] == [key.id]
    assert code_of(disabled.as_user(key.text).get(VERIFY)) == (401, "token_revoked")


def test_without_a_setting_an_owner_has_at_most_50_active_keys(robin: SignedInClient) -> None:
    for _ in range(50):
        make_key(robin, OWN_KEYS)

    assert code_of(robin.post(OWN_KEYS, json={"name": "x"})) == (409, "key_limit_reached")


def test_a_key_of_another_owner_is_not_found(boss: SignedInClient, robin: SignedInClient) -> None:
    key, service = make_key(robin, OWN_KEYS), make_service(boss)

    for path in (f"{OWN_KEYS}{key.id}", f"{service.keys_path}{key.id}"):
        assert code_of(boss.get(path)) == (404, "not_found")
        assert code_of(boss.patch(path, json={"name": "x"})) == (404, "not_found")
        assert code_of(boss.delete(path)) == (404, "not_found")
        assert code_of(boss.post(f"{path}/rotate")) == (404, "not_found")


def test_keys_of_an_unknown_owner_are_not_found(boss: SignedInClient) -> None:
    service, nobody = make_service(boss), "01900000-0000-7000-8000-000000000000"
    body = {"name": "x"}

    for answer in (
        boss.get(f"{ACCOUNTS}{nobody}/api-keys/"),
        boss.post(f"{ACCOUNTS}{nobody}/api-keys/", json=body),
        boss.delete(f"{ACCOUNTS}{nobody}/api-keys/"),
        boss.get(f"{ACCOUNTS}{nobody}/api-keys/{service.key.id}"),
        boss.get(f"/api/v1/users/{service.id}/api-keys/"),
        boss.delete(f"/api/v1/users/{service.id}/api-keys/{service.key.id}"),
        boss.get(f"{service.keys_path}{nobody}"),
        boss.get(f"{OWN_KEYS}{nobody}"),
        boss.get(f"{OWN_KEYS}first"),
    ):
        assert code_of(answer) == (404, "not_found")


def test_administrators_list_and_revoke_the_keys_of_users(
    boss: SignedInClient,
    robin: SignedInClient,
    client: JsonClient,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    key, other = make_key(robin, OWN_KEYS), make_key(robin, OWN_KEYS)
    owner_id = robin.get("/api/v1/auth/me").get_json()["id"]
    path = f"/api/v1/users/{owner_id}/api-keys/"
    peer = log_in(make_user("peer", roles=["moderator"]))

    assert [item["id"] for item in peer.get(path).get_json()["items"]] == [other.id, key.id]
    assert code_of(peer.delete(path)) == (403, "permission_denied")
    admin, chief_key = log_in(make_user("adam", roles=["admin"])), make_key(boss, OWN_KEYS)
    of_chief = f"/api/v1/users/{boss.get('/api/v1/auth/me').get_json()['id']}/api-keys/"
    for refused in (of_chief, f"{of_chief}{chief_key.id}"):
        assert code_of(admin.delete(refused)) == (403, "insufficient_rank")
    assert boss.delete(f"{path}{key.id}").status_code == 204
    assert boss.delete(path).get_json() == {"revoked": 1}
    assert code_of(boss.get("/api/v1/users/" + key.id + "/api-keys/")) == (404, "not_found")
    for text in (key.text, other.text):
        assert code_of(client.as_user(text).get(VERIFY)) == (401, "token_revoked")


def test_ended_keys_are_listed_for_30_days_and_then_deleted(
    app: Flask, services: Services, robin: SignedInClient, clock: ManualClock
) -> None:
    key = make_key(robin, OWN_KEYS)
    robin.delete(key.path)
    clock.advance(days=29)
    with app.app_context():
        assert services.api_keys.list_of(services.api_keys.owner_of(UUID(key.id)))

    clock.advance(days=2)
    with app.app_context():
        owner = services.api_keys.owner_of(UUID(key.id))
        assert services.api_keys.list_of(owner) == []
        services.clean_up.delete_due()
    with app.app_context(), reading() as connection:
        assert connection.execute(table_of(ApiKey).select()).all() == []


def test_expired_keys_are_listed_for_30_days(
    make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    end = rfc3339(clock.now() + timedelta(minutes=5))
    key = make_key(log_in(robin), OWN_KEYS, expires_at=end)

    clock.advance(days=30)
    later = log_in(robin)
    assert [item["status"] for item in later.get(OWN_KEYS).get_json()["items"]] == ["expired"]
    assert later.get(key.path).status_code == 200
    clock.advance(minutes=6)
    assert later.get(OWN_KEYS).get_json() == {"items": []}
    assert code_of(later.get(key.path)) == (404, "not_found")
    assert code_of(later.post(f"{key.path}/rotate")) == (404, "not_found")


def test_a_notice_comes_once_a_week_before_the_end(
    app: Flask,
    services: Services,
    boss: SignedInClient,
    robin: SignedInClient,
    clock: ManualClock,
) -> None:
    make_key(robin, OWN_KEYS, name="laptop")
    make_service(boss)
    short = rfc3339(clock.now() + timedelta(days=6))
    make_key(robin, OWN_KEYS, expires_at=short)

    def notices() -> int:
        with app.app_context():
            return services.key_expiry.notify_due(100)

    clock.advance(days=357, hours=23)
    assert notices() == 0
    clock.advance(hours=1, minutes=1)
    assert notices() == 2
    assert notices() == 0

    found = events(app, type_="api_key.expiring")
    assert {event.data["owner_type"] for event in found} == {"user", "service"}
    assert all(event.data["expires_at"] for event in found)
    (mail,) = [mail for mail in mails(app) if mail.kind == "api_key_expiring"]
    assert mail.data["name"] == "laptop"


@pytest.mark.parametrize(("body", "status"), [({}, 401), ({"revoke_api_keys": False}, 200)])
def test_a_reset_by_mail_revokes_personal_keys_unless_disabled(
    robin: SignedInClient, client: JsonClient, mailbox: Mailbox, body: dict[str, bool], status: int
) -> None:
    key = make_key(robin, OWN_KEYS)
    client.post("/api/v1/auth/reset-password", json={"email": "robin@example.com"})
    (token,) = tokens_in(plain_text(mailbox.deliver()[0]))

    reset = {"token": token, "new_password": "granite-otter-57-teapot", **body}
    assert client.post("/api/v1/auth/reset-password/confirm", json=reset).status_code == 204

    assert client.as_user(key.text).get(VERIFY).status_code == status


def test_a_changed_password_leaves_personal_keys(robin: SignedInClient, client: JsonClient) -> None:
    key = make_key(robin, OWN_KEYS)
    change = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}

    assert robin.post("/api/v1/auth/change-password", json=change).status_code == 200

    assert client.as_user(key.text).get(VERIFY).status_code == 200


def test_the_export_of_a_user_lists_the_keys(robin: SignedInClient) -> None:
    key = make_key(robin, OWN_KEYS)

    exported = robin.get("/api/v1/users/me/export").get_json()

    assert [item["id"] for item in exported["api_keys"]] == [key.id]
    assert key.text not in robin.get("/api/v1/users/me/export").get_data(as_text=True)
