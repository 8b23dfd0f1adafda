"""Rank: only permissions of this service count, and changing a role cannot evade it."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.actor import system_actor
from userapi.roles.definitions import RoleDefinition
from userapi.wiring.services import Services

ROLES = "/api/v1/roles/"
KEEPER = ("roles:manage", "roles:read", "users:read", "users:suspend", "stats:read", "media:upload")

MakeRole = Callable[..., None]


@pytest.fixture
def make_role(app: Flask, services: Services) -> MakeRole:
    def make(name: str, *permissions: str, parents: tuple[str, ...] = ()) -> None:
        with app.app_context():
            services.role_editor.create(
                RoleDefinition(name=name, permissions=permissions, parents=parents),
                actor=system_actor("tests"),
            )

    return make


@pytest.fixture
def keeper(make_role: MakeRole, make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    """Return the client of a user who may manage roles and suspend users."""
    make_role("keeper", *KEEPER)
    return log_in(make_user("keeper", roles=["keeper"]))


def code_of(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, (answer.get_json() or {}).get("code")


def test_a_permission_of_another_service_does_not_raise_the_rank(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    """Adding `media:delete` to a widely held role made its holders immune to administrators."""
    make_role("editor", "media:delete", "users:frobnicate", "media:*")
    robin = make_user("robin", roles=["editor"])

    assert keeper.post(f"/api/v1/users/{robin.id}/suspend").status_code == 200


def test_a_permission_of_another_service_does_not_outrank_an_equal(
    make_role: MakeRole, make_user: MakeUser, log_in: LogIn
) -> None:
    make_role("plain-suspender", "users:suspend")
    make_role("media-suspender", "users:suspend", "media:*")
    other = make_user("other", roles=["plain-suspender"])
    client = log_in(make_user("boss", roles=["media-suspender"]))

    answer = client.post(f"/api/v1/users/{other.id}/suspend")

    assert code_of(answer) == (403, "insufficient_rank")


def test_a_wildcard_outranks_a_part_of_what_it_implies(
    make_role: MakeRole, make_user: MakeUser, log_in: LogIn
) -> None:
    make_role("all-of-users", "users:*")
    make_role("part-of-users", "users:read", "users:suspend")
    part = make_user("part", roles=["part-of-users"])
    whole = make_user("whole", roles=["all-of-users"])

    assert log_in(whole).post(f"/api/v1/users/{part.id}/suspend").status_code == 200
    answer = log_in(make_user("partner", roles=["part-of-users"])).post(
        f"/api/v1/users/{whole.id}/suspend"
    )
    assert code_of(answer) == (403, "insufficient_rank")


@pytest.mark.parametrize("removal", [{"permissions": []}, {"permissions": ["media:upload"]}])
def test_a_parent_role_is_not_emptied_over_the_heads_of_its_heirs(
    app: Flask,
    keeper: SignedInClient,
    make_role: MakeRole,
    make_user: MakeUser,
    removal: dict[str, Any],
) -> None:
    """A role manager removed permissions of higher-ranked users through a parent role."""
    make_role("base", "users:read")
    make_role("chief", "users:delete", parents=("base",))
    make_user("captain", roles=["chief"])

    answer = keeper.put(f"{ROLES}base", json=removal)

    assert code_of(answer) == (403, "insufficient_rank")
    assert keeper.get(f"{ROLES}base").get_json()["permissions"] == ["users:read"]
    assert not audit_rows(app, action="role.updated")
    (denied,) = audit_rows(app, action="auth.permission_denied")
    assert (denied.target_id, denied.details["code"]) == ("base", "insufficient_rank")


def test_a_parent_is_not_removed_if_higher_ranked_users_would_lose_permissions(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("base", "users:read")
    make_role("middle", "stats:read", parents=("base",))
    make_role("chief", "users:delete", parents=("middle",))
    make_user("captain", roles=["chief"])

    answer = keeper.put(f"{ROLES}middle", json={"parents": []})

    assert code_of(answer) == (403, "insufficient_rank")


def test_users_of_the_same_rank_lose_no_permission_either(
    keeper: SignedInClient, make_user: MakeUser
) -> None:
    make_user("peer", roles=["keeper"])

    answer = keeper.put(f"{ROLES}keeper", json={"permissions": ["roles:manage", "roles:read"]})

    assert code_of(answer) == (403, "insufficient_rank")


def test_a_peer_by_several_roles_is_found_too(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("managing", "roles:manage", "roles:read", "users:read")
    make_role("helping", "users:suspend", "stats:read")
    make_user("peer", roles=["managing", "helping"])

    answer = keeper.put(f"{ROLES}helping", json={"permissions": []})

    assert code_of(answer) == (403, "insufficient_rank")


def test_users_of_lower_rank_lose_the_permissions_of_the_role(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("base", "users:read")
    make_role("helper", "stats:read", parents=("base",))
    robin = make_user("robin", roles=["helper"])

    answer = keeper.put(f"{ROLES}base", json={"permissions": []})

    assert answer.status_code == 200
    items = keeper.get(f"/api/v1/users/{robin.id}/permissions").get_json()["items"]
    assert [item["permission"] for item in items] == ["stats:read"]


def test_users_who_keep_the_permission_through_another_role_do_not_count(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("base", "users:read")
    make_user("captain", roles=["base", "admin"])

    assert keeper.put(f"{ROLES}base", json={"permissions": []}).status_code == 200


def test_permissions_of_other_services_can_be_removed_from_any_user(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("uploader", "media:upload")
    make_user("captain", roles=["uploader", "superadmin"])

    assert keeper.put(f"{ROLES}uploader", json={"permissions": []}).status_code == 200


def test_replacing_a_wildcard_by_its_permissions_removes_none(
    make_role: MakeRole, make_user: MakeUser, log_in: LogIn
) -> None:
    make_role("watching", "sessions:*")
    make_role("manager", "roles:*", "sessions:*")
    make_user("captain", roles=["watching", "admin"])
    make_user("peer", roles=["watching", "manager"])
    client = log_in(make_user("manager", roles=["manager"]))

    answer = client.put(
        f"{ROLES}watching", json={"permissions": ["sessions:read", "sessions:revoke"]}
    )

    assert answer.status_code == 200


def test_users_may_remove_their_own_permissions(keeper: SignedInClient) -> None:
    left = [name for name in KEEPER if name != "stats:read"]

    assert keeper.put(f"{ROLES}keeper", json={"permissions": left}).status_code == 200


def test_adding_permissions_does_not_check_ranks(
    keeper: SignedInClient, make_role: MakeRole, make_user: MakeUser
) -> None:
    make_role("base", "media:upload")
    make_user("captain", roles=["base", "superadmin"])

    answer = keeper.put(f"{ROLES}base", json={"permissions": ["media:upload", "users:read"]})

    assert answer.status_code == 200


def test_holders_of_all_permissions_may_change_any_role(
    make_role: MakeRole, make_user: MakeUser, log_in: LogIn
) -> None:
    make_role("base", "users:read")
    make_user("captain", roles=["base"])
    root = log_in(make_user("root-user", roles=["superadmin"]))

    assert root.put(f"{ROLES}base", json={"permissions": []}).status_code == 200
