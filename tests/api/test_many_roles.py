"""A user has at most fifty roles, in whichever way they are assigned."""

import json
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import insert

from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.actor import system_actor
from userapi.infrastructure.database import (
    table_of,
    transaction,
)
from userapi.roles.definitions import RoleDefinition
from userapi.roles.models import UserRole
from userapi.wiring.services import Services

NAMES = [f"team-{number:02d}" for number in range(51)]
NEW = {"username": "ada", "email": "ada@example.com", "password": "violet-harbour-93-lantern"}

_user_roles = table_of(UserRole)


@pytest.fixture(autouse=True)
def roles(app: Flask, services: Services) -> None:
    with app.app_context():
        services.role_editor.synchronize(
            wanted := [RoleDefinition(name=name) for name in NAMES],
            actor=system_actor("tests"),
            expected=services.role_editor.differences(wanted),
        )


@pytest.fixture
def root(make_user: MakeUser) -> MadeUser:
    return make_user("root-user", roles=["superadmin"])


@pytest.fixture
def boss(root: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(root)


def refusal(answer: Any) -> tuple[int, str, list[tuple[str, str]]]:
    body = answer.get_json()
    return answer.status_code, body["code"], [(e["field"], e["code"]) for e in body["errors"]]


REFUSED = (422, "validation_failed", [("roles", "too_many_roles")])


def test_a_user_cannot_be_created_with_more(boss: SignedInClient) -> None:
    assert refusal(boss.post("/api/v1/users/", json={**NEW, "roles": NAMES})) == REFUSED
    assert boss.post("/api/v1/users/", json={**NEW, "roles": NAMES[:50]}).status_code == 201


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_user_cannot_be_changed_to_have_more(
    boss: SignedInClient, make_user: MakeUser, method: str
) -> None:
    robin = make_user("robin")
    call = getattr(boss, method)

    assert refusal(call(f"/api/v1/users/{robin.id}", json={"roles": NAMES})) == REFUSED
    assert call(f"/api/v1/users/{robin.id}", json={"roles": NAMES[:50]}).status_code == 200


def test_more_cannot_be_assigned_to_a_user(boss: SignedInClient, make_user: MakeUser) -> None:
    path = f"/api/v1/users/{make_user('robin').id}/roles"

    assert refusal(boss.put(path, json={"roles": NAMES})) == REFUSED
    assert boss.put(path, json={"roles": NAMES[1:]}).status_code == 200


def test_a_repeated_role_counts_once(boss: SignedInClient, make_user: MakeUser) -> None:
    path = f"/api/v1/users/{make_user('robin').id}/roles"

    assert boss.put(path, json={"roles": [*NAMES[:50], NAMES[0]]}).status_code == 200


def test_one_more_by_bulk_is_refused_for_that_user(
    boss: SignedInClient, make_user: MakeUser
) -> None:
    full, other = make_user("full", roles=NAMES[:50]), make_user("other")
    body = {"action": "assign_role", "role": NAMES[50], "user_ids": [full.id, other.id]}

    results = boss.post("/api/v1/users/bulk", json=body).get_json()["results"]

    assert [result.get("code") for result in results] == ["too_many_roles", None]


def test_users_who_already_have_more_can_be_given_fewer(
    app: Flask, boss: SignedInClient, make_user: MakeUser
) -> None:
    robin = make_user("robin", roles=NAMES[:50])
    with app.app_context(), transaction() as session:
        rows = [{"user_id": UUID(robin.id), "role_name": name} for name in (NAMES[50], "user")]
        session.execute(insert(_user_roles), rows)
    body = {"action": "remove_role", "role": "user", "user_ids": [robin.id]}

    assert boss.post("/api/v1/users/bulk", json=body).get_json()["succeeded"] == 1


def test_an_imported_row_with_more_is_refused(boss: SignedInClient) -> None:
    rows = [{"username": "ada", "email": "ada@example.com", "roles": NAMES}]

    answer = boss.post(
        "/api/v1/users/import",
        data="\n".join(json.dumps(row) for row in rows),
        content_type="application/x-ndjson",
    )

    (result,) = answer.get_json()["results"]
    assert result["code"] == "validation_failed"
    assert [(e["field"], e["code"]) for e in result["errors"]] == [("roles", "too_many_roles")]


def test_the_console_refuses_more(app: Flask, root: MadeUser, make_user: MakeUser) -> None:
    reader = PageReader(app)
    reader.sign_in(root)
    robin = make_user("robin")
    reader.get(f"/users/{robin.id}")

    answer = reader.post(f"/users/{robin.id}/roles?version=1", roles=NAMES)

    assert "Must have at most 50 roles." in words(reader.follow(answer))
