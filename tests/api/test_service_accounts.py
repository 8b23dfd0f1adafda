"""Service accounts: who may create, change, suspend and delete them, and what they are not."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.machines import ACCOUNTS, code_of, make_key, make_service
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock, rfc3339
from userapi.infrastructure.database import reading
from userapi.infrastructure.idempotency_keys import IdempotencyKey


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("adam", roles=["admin"]))


def test_a_service_account_is_created_read_and_listed(boss: SignedInClient) -> None:
    body = {"name": "Media-Worker", "description": "Converts.", "metadata": {"team": "vision"}}

    created = boss.post(ACCOUNTS, json=body)

    made = created.get_json()
    assert created.status_code == 201
    assert created.headers["Location"].endswith(f"{ACCOUNTS}{made['id']}")
    assert created.headers["ETag"] == '"1"'
    assert (made["name"], made["client_id"]) == ("media-worker", made["id"])
    assert (made["roles"], made["key_count"], made["status"]) == ([], 0, "active")
    assert boss.get(f"{ACCOUNTS}{made['id']}").get_json() == made
    listed = boss.get(ACCOUNTS).get_json()
    assert (listed["total"], listed["items"]) == (1, [made])
    assert made["created_by"] == boss.get("/api/v1/auth/me").get_json()["id"]


def test_an_account_has_every_member_and_counts_its_active_keys(
    boss: SignedInClient, clock: ManualClock
) -> None:
    made = make_service(boss, expires_at=rfc3339(clock.now() + timedelta(minutes=5)))
    revoked = make_key(boss, made.keys_path)
    make_key(boss, made.keys_path)
    boss.delete(revoked.path)
    before = boss.get(made.path).get_json()

    clock.advance(minutes=6)

    assert before.keys() == {
        *("id", "client_id", "name", "description", "status", "status_reason", "roles"),
        *("metadata", "key_count", "last_used_at", "created_at", "updated_at", "created_by"),
    }
    assert (before["last_used_at"], before["status_reason"], before["description"]) == (
        None,
        None,
        "",
    )
    assert before["key_count"] == 2
    assert boss.get(made.path).get_json()["key_count"] == 1
    assert boss.get(ACCOUNTS).get_json()["items"][0]["key_count"] == 1


def test_a_repeated_creation_returns_the_same_account_for_a_day(
    boss: SignedInClient, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    headers, body = {"Idempotency-Key": "one"}, {"name": "once"}

    first, again = (boss.post(ACCOUNTS, json=body, headers=headers) for _ in range(2))
    clock.advance(hours=25)
    later = log_in(make_user("later", roles=["superadmin"]))

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json()
    for name in ("Location", "ETag"):
        assert again.headers[name] == first.headers[name]
    assert code_of(later.post(ACCOUNTS, json=body, headers=headers)) == (409, "name_taken")


def test_the_list_is_filtered_and_sorted(boss: SignedInClient) -> None:
    for name, roles in (("alpha", ["moderator"]), ("beta", []), ("gamma", ["moderator"])):
        boss.post(ACCOUNTS, json={"name": name, "roles": roles, "description": f"{name}_%"})
    beta = boss.get(ACCOUNTS, query={"search": "BET"}).get_json()["items"][0]
    boss.post(f"{ACCOUNTS}{beta['id']}/suspend")

    def names(**query: str) -> list[str]:
        return [item["name"] for item in boss.get(ACCOUNTS, query=query).get_json()["items"]]

    assert names(sort="name") == ["alpha", "beta", "gamma"]
    assert names(role="moderator", sort="-name") == ["gamma", "alpha"]
    assert names(status="suspended") == ["beta"]
    assert names(search="a_%", sort="name") == ["alpha", "beta", "gamma"]
    assert names(sort="-last_used_at") != []
    assert boss.get(ACCOUNTS, query={"sort": "roles"}).status_code == 422


def test_names_are_unique_among_service_accounts_only(
    boss: SignedInClient, make_user: MakeUser
) -> None:
    make_user("robin")
    assert boss.post(ACCOUNTS, json={"name": "robin"}).status_code == 201

    assert code_of(boss.post(ACCOUNTS, json={"name": "ROBIN"})) == (409, "name_taken")
    other = boss.post(ACCOUNTS, json={"name": "other"}).get_json()["id"]
    renamed = boss.patch(f"{ACCOUNTS}{other}", json={"name": "robin"})
    assert code_of(renamed) == (409, "name_taken")


@pytest.mark.parametrize("name", ["ab", "-x-", "ümlaut", "\u3164\u3164\u3164", "a" * 65])
def test_names_have_the_form_of_user_names(boss: SignedInClient, name: str) -> None:
    answer = boss.post(ACCOUNTS, json={"name": name})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "name"


def test_changes_have_entity_tags_audit_rows_and_events(app: Flask, boss: SignedInClient) -> None:
    made = make_service(boss)

    stale = boss.patch(made.path, json={"description": "x"}, headers={"If-Match": '"9"'})
    changed = boss.put(made.path, json={"description": "New."}, headers={"If-Match": '"1"'})
    nothing = boss.patch(made.path, json={"description": "New."})
    roles = boss.patch(made.path, json={"roles": ["moderator"]})
    none = boss.patch(made.path, json={"roles": []})

    assert code_of(stale) == (412, "stale_resource")
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert nothing.headers["ETag"] == '"2"'
    assert roles.get_json()["roles"] == ["moderator"]
    assert none.get_json()["roles"] == []
    actions = [row.action for row in audit_rows(app) if row.target_id == made.id]
    types = [event.type for event in events(app) if event.subject == made.id]
    assert actions == [
        "service_account.created",
        "service_account.updated",
        "service_account.roles_changed",
        "service_account.roles_changed",
    ]
    assert types == [
        "service_account.created",
        "api_key.created",
        "service_account.updated",
        "service_account.roles_changed",
        "service_account.roles_changed",
    ]


def test_the_status_is_no_field_of_an_edit(boss: SignedInClient) -> None:
    made = make_service(boss)

    for method in ("put", "patch"):
        answer = getattr(boss, method)(made.path, json={"status": "suspended"})
        assert code_of(answer) == (422, "validation_failed")


def test_roles_need_their_permission_and_cannot_escalate(
    boss: SignedInClient, admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    boss.post(
        "/api/v1/roles/",
        json={"name": "keeper", "permissions": ["service_accounts:*"]},
    )
    keeper = log_in(make_user("keeper", roles=["keeper"]))

    denied = keeper.post(ACCOUNTS, json={"name": "x-1", "roles": ["user"]})
    assert (denied.status_code, denied.get_json()["permission"]) == (403, "roles:assign")
    plain = keeper.post(ACCOUNTS, json={"name": "x-1"})
    assert plain.status_code == 201
    changed = keeper.patch(f"{ACCOUNTS}{plain.get_json()['id']}", json={"roles": []})
    assert code_of(changed) == (403, "permission_denied")
    escalated = admin.post(ACCOUNTS, json={"name": "x-2", "roles": ["superadmin"]})
    assert code_of(escalated) == (403, "permission_escalation")
    unknown = admin.post(ACCOUNTS, json={"name": "x-2", "roles": ["nothing"]})
    assert code_of(unknown) == (422, "validation_failed")


def test_at_most_50_roles(boss: SignedInClient) -> None:
    answer = boss.post(ACCOUNTS, json={"name": "many", "roles": [f"r{n}" for n in range(51)]})

    assert answer.status_code == 422
    assert "too_many_roles" in {error["code"] for error in answer.get_json()["errors"]}


def test_who_does_not_outrank_an_account_cannot_touch_it(
    boss: SignedInClient, admin: SignedInClient
) -> None:
    made = make_service(boss, roles=["superadmin"])

    for method, path, body in (
        ("PATCH", made.path, {"description": "x"}),
        ("POST", f"{made.path}/suspend", None),
        ("DELETE", made.path, None),
        ("POST", made.keys_path, {"name": "x"}),
        ("PATCH", made.key.path, {"name": "x"}),
        ("POST", f"{made.key.path}/rotate", {}),
        ("DELETE", made.key.path, None),
        ("DELETE", made.keys_path, None),
    ):
        assert code_of(admin.request(method, path, json=body)) == (403, "insufficient_rank"), path


def test_a_suspension_is_refused_twice_and_lifted(boss: SignedInClient) -> None:
    made = make_service(boss)

    suspended = boss.post(f"{made.path}/suspend", json={"reason": "Noise"})
    again = boss.post(f"{made.path}/suspend")
    activated = boss.post(f"{made.path}/activate", json={"reason": "Quiet"})
    twice = boss.post(f"{made.path}/activate")

    shown = suspended.get_json()
    assert (shown["status"], shown["status_reason"]) == ("suspended", "Noise")
    assert code_of(again) == code_of(twice) == (409, "invalid_status_transition")
    assert activated.get_json()["status"] == "active"
    assert activated.get_json()["status_reason"] is None


def test_a_deletion_deletes_the_keys_and_keeps_the_audit_rows(
    app: Flask, boss: SignedInClient, client: JsonClient
) -> None:
    made = make_service(boss, roles=["moderator"])
    assert client.as_user(made.key.text).get("/api/v1/auth/verify").status_code == 200

    assert boss.delete(made.path).status_code == 204

    assert code_of(client.as_user(made.key.text).get("/api/v1/auth/verify")) == (
        401,
        "token_invalid",
    )
    assert boss.get(made.path).status_code == 404
    activity = boss.get(f"{made.path}/activity")
    assert activity.status_code == 200 and activity.get_json()["total"] > 0
    assert boss.post(ACCOUNTS, json={"name": made.name}).status_code == 201


def test_a_service_account_is_no_user(boss: SignedInClient) -> None:
    made = make_service(boss, roles=["superadmin"])

    assert boss.get(f"/api/v1/users/{made.id}").status_code == 404
    assert boss.get("/api/v1/users/", query={"search": made.name}).get_json()["total"] == 0
    assert boss.get("/api/v1/users/").get_json()["total"] == 1
    assert boss.get("/api/v1/users/stats").get_json()["total"] == 1
    for path in ("sessions", "activity", "api-keys/"):
        assert boss.get(f"/api/v1/users/{made.id}/{path}").status_code == 404, path
    login = {"username": made.name, "password": made.key.text}
    assert code_of(boss.post("/api/v1/auth/login", json=login)) == (401, "invalid_credentials")
    me = boss.get("/api/v1/auth/me").get_json()["id"]
    assert code_of(boss.patch(f"/api/v1/users/{me}", json={"roles": ["user"]})) == (
        409,
        "last_superadmin",
    )


def test_a_role_that_only_service_accounts_have_is_in_use(boss: SignedInClient) -> None:
    boss.post("/api/v1/roles/", json={"name": "robot", "permissions": ["media:upload"]})
    make_service(boss, roles=["robot"])

    role = boss.get("/api/v1/roles/robot").get_json()
    assert (role["user_count"], role["service_account_count"]) == (0, 1)
    assert code_of(boss.delete("/api/v1/roles/robot")) == (409, "role_in_use")


def test_a_weaker_administrator_cannot_take_permissions_from_a_service(
    boss: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """The rule of rank for changes of roles, which counted users only."""
    boss.post("/api/v1/roles/", json={"name": "robot", "permissions": ["roles:manage"]})
    boss.post("/api/v1/roles/", json={"name": "role-editor", "permissions": ["roles:*"]})
    editor = log_in(make_user("eve", roles=["role-editor"]))
    make_service(boss, roles=["robot", "admin"])

    answer = editor.put("/api/v1/roles/robot", json={"permissions": []})

    assert code_of(answer) == (403, "insufficient_rank")


def test_the_permissions_of_an_account_are_explained(boss: SignedInClient) -> None:
    made = make_service(boss, roles=["moderator"])

    items = boss.get(f"{made.path}/permissions").get_json()["items"]

    assert {"permission": "users:read", "via": [["moderator"]]} in items


def test_an_idempotency_key_counts_for_one_account(app: Flask, boss: SignedInClient) -> None:
    """The same key and body for another account would have returned the first one's secret."""
    first, second = make_service(boss, "first"), make_service(boss, "second")
    headers, body = {"Idempotency-Key": "one-key"}, {"name": "deploy"}

    made = boss.post(first.keys_path, json=body, headers=headers)
    again = boss.post(first.keys_path, json=body, headers=headers)
    other = boss.post(second.keys_path, json=body, headers=headers)

    assert made.status_code == again.status_code == other.status_code == 201
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.get_data() == made.get_data()
    assert other.get_json()["key"] != made.get_json()["key"]
    assert other.get_json()["owner_id"] == second.id


def test_a_stored_answer_with_a_key_is_encrypted(app: Flask, boss: SignedInClient) -> None:
    made = make_service(boss)
    headers = {"Idempotency-Key": "one-key"}

    text = boss.post(made.keys_path, json={"name": "x"}, headers=headers).get_json()["key"]

    with app.app_context(), reading() as connection:
        bodies = connection.execute(select(IdempotencyKey.body)).scalars().all()
    assert len(bodies) == 1
    assert text.encode() not in bytes(bodies[0])
    wrong = boss.post(made.keys_path, json={"name": "y"}, headers=headers)
    assert code_of(wrong) == (422, "idempotency_key_reused")


def test_rows_of_services_are_found_in_the_audit_log(
    boss: SignedInClient, client: JsonClient
) -> None:
    boss.post("/api/v1/roles/", json={"name": "suspender", "permissions": ["users:*"]})
    made = make_service(boss, roles=["suspender"])
    other = make_key(boss, made.keys_path)
    new = {"username": "ada", "email": "ada@example.com"}
    assert client.as_user(made.key.text).post("/api/v1/users/", json=new).status_code == 201

    def found(**query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = boss.get("/api/v1/audit-logs/", query=query).get_json()[
            "items"
        ]
        return rows

    by_key = found(key_id=made.key.id)
    assert [row["action"] for row in by_key] == ["user.invited", "user.created"]
    assert {row["actor_type"] for row in by_key} == {"service"}
    assert {row["actor_username"] for row in by_key} == {made.name}
    assert {row["key_id"] for row in by_key} == {made.key.id}
    assert found(actor_type="service") == by_key
    assert found(key_id=other.id) == []
    for query in ({"key_id": "x"}, {"actor_type": "robot"}):
        assert boss.get("/api/v1/audit-logs/", query=query).status_code == 422
    activity = boss.get(f"{made.path}/activity").get_json()["items"]
    assert {row["action"] for row in activity} >= {"user.created", "service_account.created"}
