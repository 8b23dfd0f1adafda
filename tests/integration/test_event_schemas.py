"""Each published event matches the documented schema of its type."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator

from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.second_factors import add_app
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.events.catalogue import EventType
from userapi.events.publisher import MemoryPublisher
from userapi.events.relay import Relay
from userapi.wiring.services import Services

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "events"
DOCUMENT = FOLDER.with_suffix(".md")
NEW_PASSWORD = "granite-otter-57-teapot"
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Alone:
    """The place of a worker that has no rival."""

    history = "7"

    def holds(self) -> bool:
        return True

    def release(self) -> None:
        """Keep it."""


def schema_of(type_: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / f"{type_}.schema.json").read_text("utf-8"))
    return schema


def faults(event: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(
        schema_of(event["type"]), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    return [f"{event['type']}: {fault.message}" for fault in validator.iter_errors(event)]


def live_through_everything(
    app: Flask, boss: SignedInClient, mailbox: Mailbox, clock: ManualClock
) -> None:
    """Do all that makes an event, over HTTP."""
    anybody = JsonClient(app)

    def did(answer: Any, *statuses: int) -> Any:
        assert answer.status_code in (statuses or (200, 201, 202, 204)), answer.text
        return answer.get_json(silent=True)

    def log_in(password: str) -> SignedInClient:
        body = {"username": "ada", "password": password}
        return SignedInClient(app, did(anybody.post("/api/v1/auth/login", json=body)))

    new = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    ada_id = did(anybody.post("/api/v1/auth/register", json=new))["id"]
    ada = f"/api/v1/users/{ada_id}"
    did(anybody.post("/api/v1/auth/verify-email/resend", json={"email": "ada@example.com"}))
    session = log_in(PASSWORD)
    change = {"new_email": "countess@example.com", "current_password": PASSWORD}
    did(session.post("/api/v1/auth/change-email", json=change))
    did(anybody.post("/api/v1/auth/verify-email", json={"token": mailbox.token()}))
    passwords = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    did(session.post("/api/v1/auth/change-password", json=passwords))

    session = log_in(NEW_PASSWORD)
    refresh = {"refresh_token": session.refresh_token}
    did(anybody.post("/api/v1/auth/refresh", json=refresh))
    clock.advance(seconds=60)
    did(anybody.post("/api/v1/auth/refresh", json=refresh), 401)
    for _ in range(5):
        wrong = {"username": "ada", "password": "wrong-password-1"}
        did(anybody.post("/api/v1/auth/login", json=wrong), 401)

    did(boss.post(f"{ada}/unlock"))
    add_app(log_in(NEW_PASSWORD), clock)
    did(boss.delete(f"{ada}/mfa"))
    did(boss.patch(ada, json={"first_name": "Ada"}))
    role = {"name": "editor", "permissions": ["media:upload"], "parents": ["user"]}
    did(boss.post("/api/v1/roles/", json=role))
    did(boss.put("/api/v1/roles/editor", json={"permissions": ["media:delete"]}))
    did(boss.put(f"{ada}/roles", json={"roles": ["editor"]}))
    did(boss.put(f"{ada}/roles", json={"roles": ["user"]}))
    did(boss.delete("/api/v1/roles/editor"))
    did(boss.post(f"{ada}/suspend", json={"reason": "spam"}))
    did(boss.post(f"{ada}/activate"))
    did(boss.delete(ada))
    live_as_service(boss, clock, did)


def live_as_service(boss: SignedInClient, clock: ManualClock, did: Callable[..., Any]) -> None:
    """Do all that makes an event about service accounts and API keys."""
    account_id = did(boss.post("/api/v1/service-accounts/", json={"name": "media-worker"}))["id"]
    account = f"/api/v1/service-accounts/{account_id}"
    did(boss.patch(account, json={"description": "Converts.", "metadata": {"team": "vision"}}))
    did(boss.patch(account, json={"roles": ["user"]}))
    keys = f"{account}/api-keys/"
    old = did(boss.post(keys, json={"name": "production"}))
    new = did(boss.post(f"{keys}{old['id']}/rotate"))
    did(boss.post(f"{keys}{new['id']}/rotate", json={"overlap_seconds": 0, "expires_at": None}))
    own = did(boss.post("/api/v1/users/me/api-keys/", json={"name": "laptop"}))
    did(boss.post("/api/v1/auth/revoke", json={"token": own["key"]}))
    did(boss.post(f"{account}/suspend", json={"reason": "Too many requests"}))
    did(boss.post(f"{account}/activate", json={"reason": "Fixed"}))
    expiring = did(boss.post(keys, json={"name": "soon"}))
    with boss.app.app_context():
        services: Services = boss.app.extensions["userapi"]
        clock.advance(days=359)
        assert services.key_expiry.notify_due(10) == 1, expiring
        clock.advance(days=-359)
    did(boss.delete(account))


@pytest.mark.both_databases
def test_every_event_that_is_published_fits_its_schema(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    mailbox: Mailbox,
    clock: ManualClock,
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    live_through_everything(app, boss, mailbox, clock)
    broker = MemoryPublisher()

    with app.app_context():
        Relay(clock=clock, publisher=broker, leadership=Alone()).publish_due()

    published = [json.loads(message.body) for message in broker.published]
    assert [fault for event in published for fault in faults(event)] == []
    assert {event["type"] for event in published} == {str(type_) for type_ in EventType}


def test_no_event_contains_a_secret(
    app: Flask, make_user: MakeUser, log_in: LogIn, mailbox: Mailbox, clock: ManualClock
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    live_through_everything(app, boss, mailbox, clock)
    broker = MemoryPublisher()

    with app.app_context():
        Relay(clock=clock, publisher=broker, leadership=Alone()).publish_due()

    everything = b"".join(message.body for message in broker.published)
    for secret in (PASSWORD, NEW_PASSWORD, boss.access_token, boss.refresh_token, "$2b$"):
        assert secret.encode() not in everything


def test_there_is_a_schema_for_each_type_and_for_nothing_else() -> None:
    assert {path.name for path in FOLDER.glob("*")} == {
        f"{type_}.schema.json" for type_ in EventType
    }


@pytest.mark.parametrize("type_", list(EventType), ids=str)
def test_a_schema_is_a_schema_and_refuses_what_it_does_not_know(type_: EventType) -> None:
    schema = schema_of(type_)

    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["type"] == {"const": str(type_)}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["data"]["additionalProperties"] is False


@pytest.mark.parametrize("type_", list(EventType), ids=str)
def test_the_document_lists_each_type_with_an_example_that_fits(type_: EventType) -> None:
    section = DOCUMENT.read_text("utf-8").split(f"### `{type_}`\n", 1)[1].split("\n### ", 1)[0]
    example = json.loads(section.split("```json\n", 1)[1].split("```", 1)[0])

    assert example["type"] == type_
    assert faults(example) == []
