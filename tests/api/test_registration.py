"""Registration."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails

pytestmark = pytest.mark.core

ADA = {
    "username": "Ada",
    "email": "Ada@Example.com",
    "password": "violet-harbour-93-lantern",
    "first_name": "Ada",
    "timezone": "Europe/London",
}


def register(client: JsonClient, **changes: Any) -> Any:
    return client.post("/api/v1/auth/register", json=ADA | changes)


def test_registration_creates_an_active_user_with_the_base_role(client: JsonClient) -> None:
    answer = register(client)

    assert answer.status_code == 201
    user = answer.get_json()
    assert user["username"] == "ada"
    assert user["email"] == "Ada@example.com"
    assert user["status"] == "active"
    assert user["roles"] == ["user"]
    assert user["first_name"] == "Ada"
    assert user["created_at"].endswith("Z")
    assert not any("password_hash" in key or key == "password" for key in user)


def test_registration_writes_one_audit_row_and_one_event(app: Flask, client: JsonClient) -> None:
    user = register(client, username="ada").get_json()

    assert [(r.action, r.target_id, r.actor_type) for r in audit_rows(app)] == [
        ("user.registered", user["id"], "anonymous")
    ]
    (event,) = events(app)
    assert event.type == "user.registered"
    assert event.subject == user["id"]
    assert event.data == {
        "user_id": user["id"],
        "username": "ada",
        "email": "Ada@example.com",
        "status": "active",
        "roles": ["user"],
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"username": "ADA", "email": "other@example.com"}, "username_taken"),
        ({"username": "other", "email": "aDa@EXAMPLE.com"}, "email_taken"),
    ],
)
def test_a_name_or_address_in_use_is_a_conflict(
    client: JsonClient, changes: dict[str, str], code: str
) -> None:
    register(client)

    answer = register(client, **changes)

    assert answer.status_code == 409
    assert answer.get_json()["code"] == code


def test_two_spellings_of_an_international_domain_are_one_address(client: JsonClient) -> None:
    register(client, email="ada@bücher.example")

    answer = register(client, username="other", email="ada@xn--bcher-kva.example")

    assert answer.get_json()["code"] == "email_taken"


def test_concurrent_registrations_create_exactly_one_account(app: Flask) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: register(JsonClient(app)), range(12)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [409] * 11
    assert len(audit_rows(app, action="user.registered")) == 1


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"username": "ab"}, "username", "invalid_username"),
        ({"username": "a" * 65}, "username", "invalid_username"),
        ({"username": "_ada"}, "username", "invalid_username"),
        ({"username": "ada lovelace"}, "username", "invalid_username"),
        ({"username": "\u212alaus"}, "username", "invalid_username"),
        ({"username": "administrator"}, "username", "reserved_username"),
        ({"username": 7}, "username", "wrong_type"),
        ({"email": "ada"}, "email", "invalid_email"),
        ({"email": "ada@localhost"}, "email", "invalid_email"),
        ({"password": "short"}, "password", "password_too_short"),
        ({"password": "password1"}, "password", "password_common"),
        ({"password": "my-ada@example.com-1"}, "password", "password_contains_email"),
        ({"first_name": "Ada\u0000"}, "first_name", "invalid_characters"),
        ({"first_name": "A" * 101}, "first_name", "too_long"),
        ({"timezone": "Mars/Olympus"}, "timezone", "invalid_timezone"),
        ({"locale": "xx-XX-nothing"}, "locale", "invalid_locale"),
        ({"avatar_url": "javascript:alert(1)"}, "avatar_url", "invalid_url"),
        ({"phone": "not a number"}, "phone", "invalid_phone"),
        ({"status": "active"}, "status", "unknown_field"),
        ({"roles": ["superadmin"]}, "roles", "unknown_field"),
    ],
)
def test_a_bad_field_is_named(
    app: Flask, client: JsonClient, changes: dict[str, Any], field: str, code: str
) -> None:
    answer = register(client, **changes)

    assert answer.status_code == 422
    problem = answer.get_json()
    assert problem["code"] == "validation_failed"
    assert (field, code) in [(error["field"], error["code"]) for error in problem["errors"]]
    assert audit_rows(app) == []


def test_all_missing_fields_are_reported_together(client: JsonClient) -> None:
    answer = client.post("/api/v1/auth/register", json={})

    missing = {error["field"] for error in answer.get_json()["errors"]}
    assert missing == {"username", "email", "password"}


def test_name_address_and_password_are_checked_together(client: JsonClient) -> None:
    """Only the first error was reported; the next one appeared after it was fixed."""
    answer = register(client, username="a", email="nowhere", password="password1")

    faults = {(error["field"], error["code"]) for error in answer.get_json()["errors"]}
    assert faults >= {
        ("username", "invalid_username"),
        ("email", "invalid_email"),
        ("password", "password_common"),
    }


def test_all_violated_password_rules_are_reported_together(client: JsonClient) -> None:
    answer = register(client, password="ada")

    codes = {error["code"] for error in answer.get_json()["errors"]}
    assert {"password_too_short", "password_contains_username", "password_too_weak"} <= codes


def test_registration_can_be_disabled(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(FEATURE_USER_REGISTRATION="false"))

    answer = register(client)

    assert answer.status_code == 403
    assert answer.get_json()["code"] == "registration_disabled"


def test_with_verification_new_and_existing_addresses_get_the_same_response(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(FEATURE_EMAIL_VERIFICATION="true")
    client = JsonClient(app)

    new = register(client)
    taken = register(client, username="other")

    assert (new.status_code, taken.status_code) == (202, 202)
    assert new.get_json() == taken.get_json() == {"status": "pending"}
    assert [mail.kind for mail in mails(app)] == ["verify_email", "account_exists"]
    login = client.post("/api/v1/auth/login", json={"username": "ada", "password": ADA["password"]})
    assert login.get_json()["code"] == "account_pending"
