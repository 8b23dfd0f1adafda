"""Export of users as NDJSON and CSV."""

import csv
import io
import json
import tracemalloc
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert, text
from werkzeug.test import TestResponse

from tests.support.databases import patient_transaction
from tests.support.facts import audit_rows
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.exports import CHUNK
from userapi.accounts.models import User
from userapi.accounts.search import UserFilter
from userapi.actor import system_actor
from userapi.infrastructure.database import (
    new_id,
    table_of,
    transaction,
)
from userapi.infrastructure.export import ExportFormat
from userapi.wiring.services import Services

EXPORT = "/api/v1/users/export"

_users = table_of(User)


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


def add_users(app: Flask, services: Services, count: int) -> None:
    now = services.clock.now()
    with app.app_context(), patient_transaction() as session:
        session.execute(
            insert(_users),
            [
                {
                    "id": new_id(),
                    "username": f"many{number}",
                    "email": f"many{number}@example.com",
                    "email_normalized": f"many{number}@example.com",
                    "email_verified": True,
                    "must_change_password": False,
                    "status": "active",
                    "attributes": {"text": "x" * 500},
                    "search_text": f"many{number}",
                    "version": 1,
                    "access_version": 1,
                    "created_at": now,
                    "updated_at": now,
                }
                for number in range(count)
            ],
        )


def lines(answer: TestResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]


def test_every_user_is_in_the_file_as_the_api_shows_them(
    admin: SignedInClient, make_user: MakeUser
) -> None:
    robin = make_user("robin", roles=["moderator"], phone="+41446681800")

    answer = admin.get(EXPORT)

    assert answer.status_code == 200
    assert answer.mimetype == "application/x-ndjson"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="users-')
    assert answer.headers["Cache-Control"] == "no-store"
    users = {user["username"]: user for user in lines(answer)}
    assert set(users) == {"boss", "robin"}
    shown = admin.get(f"/api/v1/users/{robin.id}").get_json()
    assert users["robin"] == shown


def test_filters_of_the_list_apply(admin: SignedInClient, make_user: MakeUser) -> None:
    make_user("robin", roles=["moderator"])
    make_user("roberta")

    def names(**query: str) -> list[str]:
        return [user["username"] for user in lines(admin.get(EXPORT, query=query))]

    assert names(search="rob") == ["robin", "roberta"]
    assert names(search="rob", role="moderator") == ["robin"]
    assert names(status="suspended") == []


def test_csv_has_a_header_and_a_line_for_each_user(
    admin: SignedInClient, make_user: MakeUser
) -> None:
    make_user("robin", roles=["moderator", "user"], first_name='Rob "R", in')

    answer = admin.get(EXPORT, query={"format": "csv", "search": "robin"})

    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    (robin,) = csv.DictReader(io.StringIO(answer.get_data(as_text=True)))
    assert robin["username"] == "robin"
    assert robin["first_name"] == 'Rob "R", in'
    assert robin["roles"] == "moderator;user"
    assert (robin["email_verified"], robin["last_login_at"]) == ("false", "")


def test_an_empty_export_has_a_header(admin: SignedInClient) -> None:
    answer = admin.get(EXPORT, query={"format": "csv", "search": "nobody"})

    assert answer.get_data(as_text=True).startswith("id,username,email,")
    assert answer.get_data(as_text=True).count("\n") == 1


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_cell_is_a_formula(admin: SignedInClient, make_user: MakeUser, name: str) -> None:
    make_user("robin", first_name=name)

    answer = admin.get(EXPORT, query={"format": "csv", "search": "robin"})

    (robin,) = csv.DictReader(io.StringIO(answer.get_data(as_text=True)))
    assert robin["first_name"] == f"'{name}"


def test_the_export_is_recorded_with_its_filters(app: Flask, admin: SignedInClient) -> None:
    admin.get(EXPORT, query={"format": "csv", "status": "active"})

    (row,) = audit_rows(app, action="user.exported")
    assert row.actor_username == "boss"
    assert row.details == {"format": "csv", "filters": {"status": "active"}}


def test_an_export_requires_its_permission(make_user: MakeUser, log_in: LogIn) -> None:
    moderator = log_in(make_user("mod", roles=["moderator"]))

    assert moderator.get(EXPORT).get_json()["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("query", "field"), [({"format": "xml"}, "format"), ({"page": "2"}, "page")]
)
def test_a_bad_query_is_422(admin: SignedInClient, query: dict[str, str], field: str) -> None:
    answer = admin.get(EXPORT, query=query)

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == field


def test_an_export_of_several_pieces_has_every_user_once(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    add_users(app, services, 2 * CHUNK)

    names = [user["username"] for user in lines(admin.get(EXPORT))]

    assert len(names) == len(set(names)) == 2 * CHUNK + 1


def test_an_error_during_the_export_truncates_the_file(app: Flask, services: Services) -> None:
    """A file that ends regularly would look complete."""
    add_users(app, services, 2 * CHUNK)
    with app.app_context():
        pieces = services.user_exports.pieces(
            UserFilter(), ExportFormat.NDJSON, actor=system_actor("tests")
        )
        next(pieces)
        with transaction() as session:
            session.execute(text("ALTER TABLE users RENAME TO hidden"))
        try:
            with pytest.raises(Exception, match="users"):
                list(pieces)
        finally:
            with transaction() as session:
                session.execute(text("ALTER TABLE hidden RENAME TO users"))


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_number_of_users(app: Flask, services: Services) -> None:
    def peak() -> int:
        with app.app_context():
            pieces = services.user_exports.pieces(
                UserFilter(), ExportFormat.NDJSON, actor=system_actor("tests")
            )
            tracemalloc.start()
            for _ in pieces:
                pass
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    add_users(app, services, 2 * CHUNK)
    peak()
    with_two = peak()
    with app.app_context(), patient_transaction() as session:
        session.execute(_users.delete())
    add_users(app, services, 8 * CHUNK)
    with_eight = peak()

    assert with_eight < 1.5 * with_two
