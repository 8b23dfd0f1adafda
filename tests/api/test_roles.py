"""Creating, changing and deleting custom roles, and why a user may do something."""

from typing import Any

import pytest
from flask import Flask

from tests.support.facts import audit_rows, events
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.actor import system_actor
from userapi.roles.definitions import RoleDefinition
from userapi.wiring.services import Services

pytestmark = pytest.mark.core

ROLES = "/api/v1/roles/"
EDITOR = {
    "name": "media-editor",
    "description": "Looks after what people upload.",
    "permissions": ["media:upload", "media:delete"],
    "parents": ["user"],
}


@pytest.fixture
def root(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("root-user", roles=["superadmin"]))


@pytest.fixture
def keeper(app: Flask, services: Services, make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    """Return the client of a user who may manage roles and little else."""
    with app.app_context():
        services.role_editor.create(
            RoleDefinition(
                name="keeper", permissions=("roles:manage", "roles:read", "roles:assign", "a:b")
            ),
            actor=system_actor("tests"),
        )
    return log_in(make_user("keeper", roles=["keeper"]))


def create(client: SignedInClient, **changes: Any) -> Any:
    return client.post(ROLES, json=EDITOR | changes)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def test_a_role_is_created(app: Flask, root: SignedInClient) -> None:
    answer = create(root)

    assert answer.status_code == 201
    role = answer.get_json()
    assert role | {"created_at": None, "updated_at": None} == {
        "name": "media-editor",
        "description": "Looks after what people upload.",
        "permissions": ["media:delete", "media:upload"],
        "parents": ["user"],
        "effective_permissions": ["media:delete", "media:upload"],
        "builtin": False,
        "service_account_count": 0,
        "user_count": 0,
        "created_at": None,
        "updated_at": None,
    }
    shown = root.get(answer.headers["Location"])
    assert shown.get_json() == role
    assert shown.headers["ETag"] == answer.headers["ETag"]
    (row,) = audit_rows(app, action="role.created")
    assert (row.target_type, row.target_id) == ("role", "media-editor")
    assert row.changes["permissions"] == [None, ["media:delete", "media:upload"]]
    (event,) = events(app, type_="role.created")
    assert event.subject == "media-editor"
    assert event.data == {
        "name": "media-editor",
        "permissions": ["media:delete", "media:upload"],
        "parents": ["user"],
    }


def test_a_repeated_create_happens_once(app: Flask, root: SignedInClient) -> None:
    key = {"Idempotency-Key": "role-1"}

    first = root.post(ROLES, json=EDITOR, headers=key)
    second = root.post(ROLES, json=EDITOR, headers=key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotent-Replay"] == "true"
    assert second.get_json() == first.get_json()
    assert len(audit_rows(app, action="role.created")) == 1


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": "Media"}, "name", "invalid_role_name"),
        ({"name": "m"}, "name", "invalid_role_name"),
        ({"name": "9lives"}, "name", "invalid_role_name"),
        ({"name": "a" * 65}, "name", "invalid_role_name"),
        ({"name": "permissions"}, "name", "invalid_role_name"),
        ({"permissions": ["media"]}, "permissions.0", "invalid_permission"),
        ({"permissions": ["a:b", "Media:Upload"]}, "permissions.1", "invalid_permission"),
        ({"permissions": ["*:read"]}, "permissions.0", "invalid_permission"),
        ({"permissions": "a:b"}, "permissions", "wrong_type"),
        ({"parents": ["user", "wizard"]}, "parents.1", "unknown_role"),
        ({"description": "x" * 501}, "description", "too_long"),
        ({"builtin": True}, "builtin", "unknown_field"),
    ],
)
def test_a_bad_field_is_named(
    app: Flask, root: SignedInClient, changes: dict[str, Any], field: str, code: str
) -> None:
    answer = create(root, **changes)

    assert answer.status_code == 422
    assert (field, code) in [(e["field"], e["code"]) for e in answer.get_json()["errors"]]
    assert audit_rows(app, action="role.created") == []


def test_a_name_in_use_is_a_conflict(root: SignedInClient) -> None:
    create(root)

    assert code_of(create(root)) == (409, "role_name_taken")
    assert code_of(create(root, name="user")) == (409, "role_name_taken")


def test_an_omitted_field_is_not_changed(app: Flask, root: SignedInClient) -> None:
    create(root)

    answer = root.put(f"{ROLES}media-editor", json={"permissions": ["media:upload"]})

    assert answer.status_code == 200
    role = answer.get_json()
    assert role["permissions"] == ["media:upload"]
    assert role["description"] == "Looks after what people upload."
    assert role["parents"] == ["user"]
    (row,) = audit_rows(app, action="role.updated")
    assert row.changes == {"permissions": [["media:delete", "media:upload"], ["media:upload"]]}
    (event,) = events(app, type_="role.updated")
    assert event.data["changed"] == ["permissions"]


def test_a_change_without_effect_writes_nothing(app: Flask, root: SignedInClient) -> None:
    etag = create(root).headers["ETag"]

    answer = root.put(f"{ROLES}media-editor", json=EDITOR)

    assert answer.status_code == 200
    assert answer.headers["ETag"] == etag
    assert audit_rows(app, action="role.updated") == []


def test_a_role_cannot_be_renamed(root: SignedInClient) -> None:
    create(root)

    answer = root.put(f"{ROLES}media-editor", json={"name": "other"})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["code"] == "rename_refused"


def test_a_stale_write_is_refused(root: SignedInClient) -> None:
    old = create(root).headers["ETag"]
    root.put(f"{ROLES}media-editor", json={"description": "Other."}, headers={"If-Match": old})

    change = root.put(f"{ROLES}media-editor", json={"parents": []}, headers={"If-Match": old})
    removal = root.delete(f"{ROLES}media-editor", headers={"If-Match": old})

    assert code_of(change) == (412, "stale_resource")
    assert code_of(removal) == (412, "stale_resource")


def test_a_role_created_after_a_deleted_one_has_another_entity_tag(root: SignedInClient) -> None:
    first = create(root).headers["ETag"]
    root.delete(f"{ROLES}media-editor")

    assert create(root).headers["ETag"] != first


@pytest.mark.parametrize("name", ["user", "moderator", "admin", "superadmin"])
def test_built_in_roles_stay_as_they_are(root: SignedInClient, name: str) -> None:
    assert code_of(root.put(f"{ROLES}{name}", json={"description": "x"})) == (409, "builtin_role")
    assert code_of(root.delete(f"{ROLES}{name}")) == (409, "builtin_role")


def test_an_unknown_role_is_404(root: SignedInClient) -> None:
    assert root.put(f"{ROLES}wizard", json={}).status_code == 404
    assert root.delete(f"{ROLES}wizard").status_code == 404


def test_no_role_inherits_from_itself(root: SignedInClient) -> None:
    create(root, name="aa", parents=[])
    create(root, name="bb", parents=["aa"])
    create(root, name="cc", parents=["bb"])

    assert code_of(root.put(f"{ROLES}aa", json={"parents": ["cc"]})) == (409, "role_cycle")
    assert code_of(root.put(f"{ROLES}aa", json={"parents": ["aa"]})) == (409, "role_cycle")
    assert code_of(create(root, name="dd", parents=["dd"])) == (409, "role_cycle")
    assert root.get(f"{ROLES}aa").get_json()["parents"] == []


def test_a_role_inherits_over_any_distance(root: SignedInClient) -> None:
    create(root, name="aa", parents=[], permissions=["a:a"])
    create(root, name="bb", parents=["aa"], permissions=["b:b"])

    role = create(root, name="cc", parents=["bb"], permissions=["c:c"]).get_json()

    assert role["effective_permissions"] == ["a:a", "b:b", "c:c"]


def test_a_role_in_use_stays(root: SignedInClient, make_user: MakeUser) -> None:
    create(root, name="held")
    create(root, name="parent")
    create(root, name="child", parents=["parent"])
    make_user("robin", roles=["held"])

    assert code_of(root.delete(f"{ROLES}held")) == (409, "role_in_use")
    assert code_of(root.delete(f"{ROLES}parent")) == (409, "role_in_use")
    assert root.delete(f"{ROLES}child").status_code == 204
    assert root.delete(f"{ROLES}parent").status_code == 204
    assert root.get(f"{ROLES}parent").status_code == 404


def test_a_deletion_of_a_role_writes_an_audit_row_and_an_event(
    app: Flask, root: SignedInClient
) -> None:
    create(root)

    root.delete(f"{ROLES}media-editor")

    (row,) = audit_rows(app, action="role.deleted")
    assert row.changes["parents"] == [["user"], None]
    (event,) = events(app, type_="role.deleted")
    assert event.subject == "media-editor"


def test_a_role_with_more_permissions_than_the_callers_cannot_be_created(
    keeper: SignedInClient,
) -> None:
    answer = create(keeper, permissions=["users:delete"])

    assert code_of(answer) == (403, "permission_escalation")
    assert answer.get_json()["missing_permissions"] == ["users:delete"]
    assert code_of(create(keeper, permissions=["*"])) == (403, "permission_escalation")
    assert code_of(create(keeper, permissions=[], parents=["moderator"])) == (
        403,
        "permission_escalation",
    )
    assert keeper.get(f"{ROLES}media-editor").status_code == 404
    assert create(keeper, permissions=["a:b"]).status_code == 201


def test_a_role_with_more_permissions_than_the_callers_cannot_be_changed(
    root: SignedInClient, keeper: SignedInClient
) -> None:
    create(root)

    change = keeper.put(f"{ROLES}media-editor", json={"permissions": []})
    removal = keeper.delete(f"{ROLES}media-editor")

    assert code_of(change) == (403, "permission_escalation")
    assert code_of(removal) == (403, "permission_escalation")


def test_a_changed_role_shows_on_the_next_request(
    root: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    create(root, name="reader", permissions=[], parents=[])
    robin = log_in(make_user("robin", roles=["reader"]))
    assert robin.get("/api/v1/users/").status_code == 403

    root.put(f"{ROLES}reader", json={"permissions": ["users:read"]})
    assert robin.get("/api/v1/users/").status_code == 200

    root.put(f"{ROLES}reader", json={"permissions": []})
    assert robin.get("/api/v1/users/").status_code == 403


def test_managing_roles_needs_its_permission(make_user: MakeUser, log_in: LogIn) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))

    assert code_of(create(admin)) == (403, "permission_denied")
    assert code_of(admin.put(f"{ROLES}user", json={})) == (403, "permission_denied")
    assert code_of(admin.delete(f"{ROLES}user")) == (403, "permission_denied")


def test_every_permission_is_explained_by_its_chains(
    root: SignedInClient, make_user: MakeUser
) -> None:
    create(root, name="left", permissions=[], parents=["moderator"])
    create(root, name="right", permissions=["stats:read"], parents=["moderator"])
    robin = make_user("robin", roles=["left", "right"])

    items = root.get(f"/api/v1/users/{robin.id}/permissions").get_json()["items"]

    via = {item["permission"]: item["via"] for item in items}
    assert list(via) == sorted(via)
    assert via["users:read"] == [["left", "moderator"], ["right", "moderator"]]
    assert via["stats:read"] == [["right"], ["left", "moderator"], ["right", "moderator"]]


@pytest.mark.thorough
def test_chains_without_number_are_bounded(
    app: Flask, services: Services, root: SignedInClient, make_user: MakeUser
) -> None:
    """Two branches at each of sixteen steps make 32 768 chains of each permission."""
    with app.app_context():
        below: tuple[str, ...] = ("user",)
        for step in range(16):
            names = (f"left{step}", f"right{step}")
            for name in names:
                services.role_editor.create(
                    RoleDefinition(name=name, permissions=(f"{name}:do",), parents=below),
                    actor=system_actor("tests"),
                )
            below = names
    robin = make_user("robin", roles=["left15"])

    items = root.get(f"/api/v1/users/{robin.id}/permissions").get_json()["items"]

    assert len(items) == 31
    assert max(len(item["via"]) for item in items) == 100
    assert all(item["via"] for item in items)


def test_the_permissions_of_an_unknown_user_are_404(root: SignedInClient) -> None:
    answer = root.get("/api/v1/users/0199c0de-0000-7000-8000-000000000000/permissions")

    assert answer.status_code == 404


def test_of_the_built_in_roles_admin_and_superadmin_manage_service_accounts(
    root: SignedInClient,
) -> None:
    holders = {
        role["name"]
        for role in root.get("/api/v1/roles/").get_json()["items"]
        if {"service_accounts:read", "service_accounts:manage", "service_accounts:*", "*"}
        & set(role["permissions"])
    }

    assert holders == {"admin", "superadmin"}
