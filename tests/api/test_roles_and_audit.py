"""Reading roles and the audit log."""

import pytest
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


def test_the_built_in_roles_inherit_one_from_another(admin: SignedInClient) -> None:
    roles = {role["name"]: role for role in admin.get("/api/v1/roles/").get_json()["items"]}

    assert [roles[n]["parents"] for n in ("user", "moderator", "admin", "superadmin")] == [
        [],
        ["user"],
        ["moderator"],
        ["admin"],
    ]
    assert roles["user"]["effective_permissions"] == []
    assert roles["superadmin"]["permissions"] == ["*"]
    assert "users:suspend" in roles["admin"]["effective_permissions"]
    assert roles["admin"]["user_count"] == 1
    assert all(role["builtin"] for role in roles.values())


def test_a_role_is_shown_with_its_entity_tag(admin: SignedInClient) -> None:
    answer = admin.get("/api/v1/roles/moderator")

    assert answer.headers["ETag"] == '"1"'
    assert answer.get_json()["name"] == "moderator"
    assert admin.get("/api/v1/roles/wizard").status_code == 404


def test_the_known_permissions_have_descriptions(admin: SignedInClient) -> None:
    items = admin.get("/api/v1/roles/permissions").get_json()["items"]

    assert {"name": "users:read", "description": "List users and read their profiles."} in items


def test_the_log_is_read_newest_first_and_reading_is_recorded(
    app: Flask, admin: SignedInClient
) -> None:
    first = admin.get("/api/v1/audit-logs/").get_json()
    second = admin.get("/api/v1/audit-logs/").get_json()

    assert [row["action"] for row in first["items"]] == ["auth.login", "user.created"]
    assert second["items"][0]["action"] == "audit.read"
    assert second["items"][0]["actor_username"] == "boss"
    assert len(audit_rows(app, action="audit.read")) == 2


def test_filters_of_the_log_combine(admin: SignedInClient, make_user: MakeUser) -> None:
    robin = make_user("robin")
    admin.post(f"/api/v1/users/{robin.id}/suspend", headers={"X-Correlation-ID": "case-7"})

    def actions(**query: str) -> list[str]:
        items = admin.get("/api/v1/audit-logs/", query=query).get_json()["items"]
        return [row["action"] for row in items]

    assert actions(target_id=robin.id) == ["user.suspended", "user.created"]
    assert actions(correlation_id="case-7") == ["user.suspended"]
    assert actions(target_id=robin.id, action="user.created", outcome="success") == ["user.created"]
    assert actions(until="2020-01-01T00:00:00Z") == []
    assert actions(ip_address="192.0.2.1") == []


def test_the_log_is_walked_by_cursor(admin: SignedInClient, make_user: MakeUser) -> None:
    for number in range(4):
        make_user(f"user{number}")
    query = {"action": "user.created", "page_size": 2}

    first = admin.get("/api/v1/audit-logs/", query=query).get_json()
    second = admin.get(
        "/api/v1/audit-logs/", query=query | {"cursor": first["next_cursor"]}
    ).get_json()

    ids = [row["id"] for row in first["items"] + second["items"]]
    assert len(set(ids)) == 4
    assert ids == sorted(ids, reverse=True)


def test_a_refusal_leaves_a_row(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    robin: MadeUser = make_user("robin")
    client = log_in(robin)

    answer = client.get("/api/v1/audit-logs/")

    assert answer.status_code == 403
    assert answer.get_json()["permission"] == "audit:read"
    (row,) = audit_rows(app, action="auth.permission_denied")
    assert (str(row.actor_id), row.outcome) == (robin.id, "denied")
    assert row.details["permission"] == "audit:read"
