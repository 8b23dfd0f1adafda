"""The scope of an Idempotency-Key, and how long its response is stored."""

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.infrastructure.database import reading
from userapi.infrastructure.idempotency_keys import IdempotencyKey

USERS = "/api/v1/users/"
REGISTER = "/api/v1/auth/register"
KEY = {"Idempotency-Key": "the-same-key"}
NEW = {"username": "ada", "email": "ada@example.com", "password": "violet-harbour-93-lantern"}
BEA = {"username": "bea", "email": "bea@example.com", "password": "violet-harbour-93-lantern"}


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


def kept(app: Flask) -> int:
    with app.app_context(), reading() as connection:
        return int(
            connection.execute(select(func.count()).select_from(IdempotencyKey)).scalar_one()
        )


def replayed(answer: Any) -> bool:
    return bool(answer.headers.get("Idempotent-Replay") == "true")


@pytest.mark.parametrize("path", [USERS, REGISTER])
def test_deleting_a_user_deletes_stored_responses_about_them(
    app: Flask, boss: SignedInClient, path: str
) -> None:
    """After the deletion, a repeated request still returned the deleted data."""
    first = boss.post(path, json=NEW, headers=KEY)
    assert first.status_code == 201 and kept(app) == 1
    old_id = first.get_json()["id"]

    assert boss.delete(f"{USERS}{old_id}").status_code == 204

    assert kept(app) == 0
    again = boss.post(path, json=NEW, headers=KEY)
    assert (again.status_code, replayed(again)) == (201, False)
    assert again.get_json()["id"] != old_id


def test_deleting_the_own_account_deletes_stored_responses(
    app: Flask, client: JsonClient, log_in: LogIn
) -> None:
    client.post(REGISTER, json=NEW, headers=KEY)
    body = {"username": NEW["username"], "password": NEW["password"]}
    token = client.post("/api/v1/auth/login", json=body).get_json()["access_token"]

    client.as_user(token).delete(f"{USERS}me", json={"current_password": NEW["password"]})

    assert kept(app) == 0


def test_stored_responses_about_other_users_remain(app: Flask, boss: SignedInClient) -> None:
    gone = boss.post(USERS, json=NEW, headers=KEY).get_json()["id"]
    boss.post(USERS, json=BEA, headers={"Idempotency-Key": "another-key"})

    boss.delete(f"{USERS}{gone}")

    assert kept(app) == 1
    assert replayed(boss.post(USERS, json=BEA, headers={"Idempotency-Key": "another-key"}))


def test_keys_of_anonymous_callers_are_separate_for_each_network(client: JsonClient) -> None:
    """Another caller with the same body and key received the first caller's response."""
    here, there = client.from_address("2001:db8:1:1::7"), client.from_address("2001:db8:2::7")
    neighbour = client.from_address("2001:db8:1:1::8")
    assert here.post(REGISTER, json=NEW, headers=KEY).status_code == 201

    foreign = there.post(REGISTER, json=NEW, headers=KEY)
    same = neighbour.post(REGISTER, json=NEW, headers=KEY)

    assert (foreign.status_code, replayed(foreign)) == (409, False)
    assert (same.status_code, replayed(same)) == (201, True)
    assert there.post(REGISTER, json=BEA, headers=KEY).status_code == 201


def test_a_key_belongs_to_its_caller(
    boss: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    other = log_in(make_user("other", roles=["superadmin"]))
    boss.post(USERS, json=NEW, headers=KEY)

    assert other.post(USERS, json=BEA, headers=KEY).status_code == 201


def test_a_key_belongs_to_its_path(boss: SignedInClient) -> None:
    boss.post(USERS, json=NEW, headers=KEY)

    role = boss.post("/api/v1/roles/", json={"name": "editor"}, headers=KEY)
    without_slash = boss.post("/api/v1/users", json=NEW, headers=KEY)

    assert (role.status_code, replayed(role)) == (201, False)
    assert (without_slash.status_code, replayed(without_slash)) == (201, True)
