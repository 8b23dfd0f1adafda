"""Downloading the audit log, and the activity of a user."""

import csv
import io
import json
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.facts import audit_rows
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.audit.reading import ROWS_PER_CHUNK
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, transaction
from userapi.wiring.services import Services

EXPORT = "/api/v1/audit-logs/export"


@pytest.fixture
def boss(make_user: MakeUser) -> MadeUser:
    return make_user("boss", roles=["admin"])


@pytest.fixture
def admin(boss: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(boss)


def record(app: Flask, count: int = 1, **more: Any) -> None:
    services: Services = app.extensions["userapi"]
    actor = more.pop("actor", Actor())
    with app.app_context(), transaction():
        for _ in range(count):
            services.audit.record(AuditAction.USER_UPDATED, actor=actor, **more)


def ndjson(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]


def table(answer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline="")))


# Export


def test_the_export_has_what_the_list_has(app: Flask, admin: SignedInClient) -> None:
    listed = admin.get("/api/v1/audit-logs/").get_json()["items"]

    answer = admin.get(EXPORT)

    assert answer.status_code == 200
    assert answer.content_type == "application/x-ndjson"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="audit-logs-')
    assert answer.headers["Content-Disposition"].endswith('.ndjson"')
    assert ndjson(answer)[-len(listed) :] == listed


def test_the_export_is_complete_and_newest_first_over_many_chunks(
    app: Flask, admin: SignedInClient, clock: ManualClock
) -> None:
    """Many rows with the same time are on both sides of the end of a chunk."""
    record(app, 20)
    clock.set(clock.now())
    record(app, ROWS_PER_CHUNK * 2 + 5)

    rows = ndjson(admin.get(EXPORT, query={"action": "user.updated"}))

    expected = [str(row.id) for row in audit_rows(app, action="user.updated")]
    assert sorted(row["id"] for row in rows) == sorted(expected)
    assert [(r["occurred_at"], r["id"]) for r in rows] == sorted(
        ((r["occurred_at"], r["id"]) for r in rows), reverse=True
    )


def test_the_export_accepts_the_filters_of_the_list(app: Flask, admin: SignedInClient) -> None:
    record(app, target=("user", "one"))
    record(app, target=("user", "two"))

    rows = ndjson(admin.get(EXPORT, query={"target_id": "two", "action": "user.updated"}))

    assert [row["target_id"] for row in rows] == ["two"]


@pytest.mark.parametrize(
    "query", [{"format": "xml"}, {"page": "2"}, {"cursor": "x"}, {"wizard": "1"}]
)
def test_other_parameters_of_the_export_are_rejected(
    app: Flask, admin: SignedInClient, query: dict[str, str]
) -> None:
    answer = admin.get(EXPORT, query=query)

    assert (answer.status_code, answer.get_json()["code"]) == (422, "validation_failed")
    assert audit_rows(app, action="audit.read") == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_the_csv_is_a_formula(app: Flask, admin: SignedInClient, start: str) -> None:
    evil = start + 'HYPERLINK("http://x")'
    record(app, actor=Actor(type=ActorType.USER, username=evil, user_agent=evil))

    answer = admin.get(EXPORT, query={"format": "csv", "action": "user.updated"})

    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    (row,) = table(answer)
    assert row["user_agent"] == "'" + evil
    assert row["actor_username"] == "'" + evil


def test_the_csv_contains_every_field_in_a_readable_form(app: Flask, admin: SignedInClient) -> None:
    record(app, changes={"first_name": (None, 'Zoë, "Z"')}, target=("user", "x"))

    (row,) = table(admin.get(EXPORT, query={"format": "csv", "action": "user.updated"}))
    (shown,) = ndjson(admin.get(EXPORT, query={"action": "user.updated"}))

    assert row.keys() == shown.keys()
    assert json.loads(row["changes"]) == {"first_name": [None, 'Zoë, "Z"']}
    assert row["occurred_at"] == shown["occurred_at"]
    assert row["occurred_at"].endswith("Z")
    assert row["actor_id"] == ""


def test_an_error_during_the_export_breaks_the_response_off(
    app: Flask, admin: SignedInClient
) -> None:
    """The server receives the exception after the first chunk and closes the connection."""
    record(app, ROWS_PER_CHUNK + 10)
    answer = admin.get(EXPORT, buffered=False)
    pieces = answer.iter_encoded()
    first = next(pieces)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_logs RENAME TO audit_logs_away"))

    try:
        with pytest.raises(Exception, match="audit_logs"):
            list(pieces)
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_logs_away RENAME TO audit_logs"))

    assert first.count(b"\n") == ROWS_PER_CHUNK


# Activity


def activity(client: SignedInClient, user_id: object, **query: Any) -> Any:
    return client.get(f"/api/v1/users/{user_id}/activity", query=query)


def test_activity_has_the_rows_with_the_user_as_actor_or_target(
    app: Flask, admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin, other = make_user("robin"), make_user("other")
    log_in(robin)
    admin.post(f"/api/v1/users/{robin.id}/suspend")
    admin.post(f"/api/v1/users/{other.id}/suspend")

    answer = activity(admin, robin.id)

    assert answer.status_code == 200
    body = answer.get_json()
    assert [row["action"] for row in body["items"]] == [
        "user.suspended",
        "auth.login",
        "user.created",
    ]
    assert (body["total"], body["total_is_exact"], body["next_cursor"]) == (3, True, None)


def test_cursors_read_the_activity_without_gaps_or_duplicates(
    app: Flask, admin: SignedInClient, make_user: MakeUser
) -> None:
    """Rows with the user as actor, as target, and as both, mixed."""
    robin = make_user("robin")
    self_actor = Actor(type=ActorType.USER, id=UUID(robin.id), username="robin")
    for number in range(21):
        actor = self_actor if number % 3 else Actor()
        target = ("user", robin.id) if number % 2 or not number % 3 else ("role", "x")
        record(app, actor=actor, target=target)
    record(app, target=("session", robin.id))

    seen, cursor = [], None
    while True:
        page = activity(admin, robin.id, page_size=4, **({"cursor": cursor} if cursor else {}))
        body = page.get_json()
        seen += [row["id"] for row in body["items"]]
        cursor = body["next_cursor"]
        assert body["total"] == 22
        if cursor is None:
            break

    expected = [
        str(row.id)
        for row in audit_rows(app)
        if str(row.actor_id) == robin.id or (row.target_type, row.target_id) == ("user", robin.id)
    ]
    assert seen == expected[::-1]


def test_activity_is_paged_by_number(
    app: Flask, admin: SignedInClient, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    record(app, 4, target=("user", robin.id))

    whole = [r["id"] for r in activity(admin, robin.id).get_json()["items"]]
    third = activity(admin, robin.id, page=3, page_size=2).get_json()

    assert [row["id"] for row in third["items"]] == whole[4:]
    deep = activity(admin, robin.id, page=501)
    assert (deep.status_code, deep.get_json()["code"]) == (422, "page_too_deep")
    assert [e["field"] for e in deep.get_json()["errors"]] == ["page"]


def test_a_cursor_is_not_valid_for_the_activity_of_another_user(
    app: Flask, admin: SignedInClient, make_user: MakeUser
) -> None:
    robin, other = make_user("robin"), make_user("other")
    record(app, 3, target=("user", robin.id))
    cursor = activity(admin, robin.id, page_size=1).get_json()["next_cursor"]

    answer = activity(admin, other.id, page_size=1, cursor=cursor)

    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_cursor")


def test_reading_the_own_activity_adds_no_row(
    app: Flask, admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    client = log_in(robin)

    body = activity(client, robin.id).get_json()

    assert [row["action"] for row in body["items"]] == ["auth.login", "user.created"]
    assert body["items"][0]["ip_address"] == "127.0.0.1"
    assert audit_rows(app, action="audit.read") == []


def test_the_address_of_an_administrator_is_not_shown_to_the_user(
    app: Flask, admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    admin.patch(f"/api/v1/users/{robin.id}", json={"first_name": "R"})

    own = activity(log_in(robin), robin.id, page_size=2).get_json()["items"][1]
    auditors = activity(admin, robin.id).get_json()["items"][1]

    assert (own["action"], own["actor_username"]) == ("user.updated", "boss")
    assert (own["ip_address"], own["user_agent"], own["session_id"]) == (None, None, None)
    assert auditors["ip_address"] == "127.0.0.1"
    assert auditors["session_id"] == admin.session_id


def test_activity_of_others_needs_the_permission(
    make_user: MakeUser, log_in: LogIn, admin: SignedInClient
) -> None:
    robin = make_user("robin")
    stranger = log_in(make_user("stranger"))
    moderator = log_in(make_user("moderator", roles=["moderator"]))

    assert activity(stranger, robin.id).status_code == 404
    answer = activity(moderator, robin.id)
    assert (answer.status_code, answer.get_json()["permission"]) == (403, "audit:read")


def test_the_activity_of_a_deleted_user_is_kept(admin: SignedInClient, make_user: MakeUser) -> None:
    robin = make_user("robin")
    admin.delete(f"/api/v1/users/{robin.id}")

    answer = activity(admin, robin.id)

    assert answer.status_code == 200
    assert answer.get_json()["items"][0]["action"] == "user.deleted"


def test_the_activity_of_an_unknown_user_is_not_found(admin: SignedInClient) -> None:
    nobody = "01900000-0000-7000-8000-000000000000"

    answers = [activity(admin, nobody).status_code for _ in range(2)]

    assert answers == [404, 404]
