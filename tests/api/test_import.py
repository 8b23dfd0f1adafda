"""Import of users from NDJSON and CSV."""

import hashlib
import io
import itertools
import json
import time
from base64 import b64encode
from typing import Any

import argon2
import bcrypt
import pytest
from flask import Flask
from werkzeug.security import generate_password_hash

from tests.support.client import JsonClient
from tests.support.deployments import Backend
from tests.support.facts import audit_rows, events, mails
from tests.support.polling import least_ratio
from tests.support.users import LogIn, MakeUser, SignedInClient

pytestmark = pytest.mark.core

IMPORT = "/api/v1/users/import"
NDJSON = "application/x-ndjson"
PASSWORD = "marble-heron-58-lantern"
BCRYPT = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


def send(client: SignedInClient, *rows: Any, **query: str) -> Any:
    body = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    return client.post(IMPORT, data=body.encode(), headers={"Content-Type": NDJSON}, query=query)


def send_csv(client: SignedInClient, text: str | bytes) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return client.post(IMPORT, data=data, headers={"Content-Type": "text/csv"})


def row_of(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.com", **more}


def log_in_as(app: Flask, name: str) -> int:
    return (
        JsonClient(app)
        .post("/api/v1/auth/login", json={"username": name, "password": PASSWORD})
        .status_code
    )


def codes(answer: Any) -> list[str | None]:
    return [result.get("code") for result in answer.get_json()["results"]]


def test_rows_become_users(app: Flask, admin: SignedInClient) -> None:
    answer = send(
        admin,
        row_of("ada", password=PASSWORD, first_name="Ada", last_name="Lovelace"),
        row_of("bob", password_hash=BCRYPT, roles=["moderator"], status="suspended"),
        row_of("cleo"),
    )

    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["dry_run"], body["created"], body["failed"]) == (False, 3, 0)
    assert [(r["row"], r["status"]) for r in body["results"]] == [
        (1, "created"),
        (2, "created"),
        (3, "created"),
    ]
    ada, bob, cleo = [
        admin.get(f"/api/v1/users/{result['id']}").get_json() for result in body["results"]
    ]
    assert (ada["first_name"], ada["last_name"]) == ("Ada", "Lovelace")
    assert (ada["status"], ada["roles"]) == ("active", ["user"])
    assert (bob["status"], bob["roles"]) == ("suspended", ["moderator"])
    assert (cleo["status"], cleo["roles"]) == ("pending", ["user"])
    assert log_in_as(app, "ada") == 200


def test_each_user_has_an_audit_row_and_an_event_without_secrets(
    app: Flask, admin: SignedInClient
) -> None:
    send(admin, row_of("ada", password=PASSWORD), row_of("bob", password_hash=BCRYPT))

    rows = audit_rows(app, action="user.imported")
    assert [row.actor_username for row in rows] == ["boss", "boss"]
    assert rows[0].details == {"roles": ["user"], "status": "active"}
    told = events(app, type_="user.created")[-2:]
    assert [event.data["username"] for event in told] == ["ada", "bob"]
    assert PASSWORD not in str(rows) + str(told)
    assert BCRYPT not in str(rows) + str(told)


def test_without_a_password_the_user_is_invited(app: Flask, admin: SignedInClient) -> None:
    send(admin, row_of("ada"), row_of("bob", status="active"), row_of("cleo", status="suspended"))

    assert [mail.recipient for mail in mails(app) if mail.kind == "invitation"] == [
        "ada@example.com",
        "bob@example.com",
    ]
    assert len(audit_rows(app, action="user.invited")) == 2


@pytest.mark.parametrize(
    "password_hash",
    [
        BCRYPT,
        argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD),
        "pbkdf2_sha256$1000$salt$"
        + b64encode(hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt", 1000)).decode(),
        generate_password_hash(PASSWORD, method="scrypt:1024:8:1"),
    ],
    ids=["bcrypt", "argon2id", "django", "werkzeug"],
)
def test_a_legacy_hash_works_at_the_first_log_in(
    app: Flask, admin: SignedInClient, password_hash: str
) -> None:
    assert send(admin, row_of("ada", password_hash=password_hash)).get_json()["created"] == 1

    assert log_in_as(app, "ada") == 200
    assert log_in_as(app, "ada") == 200


def test_an_excessive_cost_is_rejected(admin: SignedInClient) -> None:
    answer = send(
        admin,
        row_of("ada", password_hash="$2b$31$" + BCRYPT[7:]),
        row_of("bob", password_hash=f"pbkdf2_sha256$999999999$salt${'A' * 43}="),
        row_of("cleo", password_hash="md5$0123456789abcdef"),
    )

    errors = [result["errors"][0] for result in answer.get_json()["results"]]
    assert [(error["field"], error["code"]) for error in errors] == [
        ("password_hash", "hash_too_costly"),
        ("password_hash", "hash_too_costly"),
        ("password_hash", "unsupported_hash"),
    ]


def test_a_rejected_row_does_not_affect_others(admin: SignedInClient, make_user: MakeUser) -> None:
    make_user("taken")

    answer = send(
        admin,
        row_of("ada"),
        "{nonsense",
        '["ada"]',
        '{"username": "x1", "username": "x2", "email": "x@example.com"}',
        row_of("Taken", email="new@example.com"),
        row_of("other", email="TAKEN@example.com"),
        row_of("ADA", email="other@example.com"),
        row_of("next", email="ada@example.com"),
        row_of("weak", password="password1"),
        row_of("role", roles=["wizard"]),
        row_of("field", color="red"),
        {"username": "nomail"},
        row_of("both", password=PASSWORD, password_hash=BCRYPT),
        row_of("odd", first_name="A\u0000", status="happy", roles=7),
        "",
        row_of("bob"),
    )

    assert answer.get_json()["created"] == 2
    assert codes(answer) == [
        None,
        "validation_failed",
        "validation_failed",
        "validation_failed",
        "username_taken",
        "email_taken",
        "username_taken",
        "email_taken",
        "validation_failed",
        "validation_failed",
        "validation_failed",
        "validation_failed",
        "validation_failed",
        "validation_failed",
        None,
    ]
    results = answer.get_json()["results"]
    assert [result["row"] for result in results] == list(range(1, 16))
    assert results[8]["errors"][0]["code"] == "password_common"
    assert {(e["field"], e["code"]) for e in results[13]["errors"]} == {
        ("first_name", "invalid_characters"),
        ("status", "invalid_choice"),
        ("roles", "wrong_type"),
    }


def test_existing_users_are_not_overwritten(admin: SignedInClient, make_user: MakeUser) -> None:
    robin = make_user("robin", first_name="Robin")

    answer = send(admin, row_of("robin", first_name="Mallory", password_hash=BCRYPT))

    assert codes(answer) == ["username_taken"]
    assert admin.get(f"/api/v1/users/{robin.id}").get_json()["first_name"] == "Robin"


def test_a_dry_run_changes_nothing(app: Flask, admin: SignedInClient, make_user: MakeUser) -> None:
    make_user("taken")

    answer = send(
        admin,
        row_of("ada", password=PASSWORD),
        row_of("taken"),
        row_of("ada", email="x@example.com"),
        dry_run="true",
    )

    body = answer.get_json()
    assert (body["dry_run"], body["created"], body["failed"]) == (True, 1, 2)
    assert "id" not in body["results"][0]
    assert codes(answer) == [None, "username_taken", "username_taken"]
    assert audit_rows(app, action="user.imported") == []
    assert admin.get("/api/v1/users/", query={"search": "ada"}).get_json()["total"] == 0


def test_csv_is_read_with_quotes_blanks_and_a_byte_order_mark(admin: SignedInClient) -> None:
    text = (
        "\ufeffusername,email,password_hash,first_name,roles,status\r\n"
        f'ada,ada@example.com,{BCRYPT},"Ada, Countess",moderator;user,active\r\n'
        "\r\n"
        "bob,bob@example.com,,,,\r\n"
        "short,row\r\n"
    )

    answer = send_csv(admin, text)

    results = answer.get_json()["results"]
    assert [(r["row"], r["status"]) for r in results] == [
        (1, "created"),
        (2, "created"),
        (3, "error"),
    ]
    assert results[2]["errors"][0]["code"] == "wrong_number_of_cells"
    ada = admin.get(f"/api/v1/users/{results[0]['id']}").get_json()
    assert (ada["first_name"], ada["roles"]) == ("Ada, Countess", ["moderator", "user"])


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("", 422, "required"),
        ("username\nada\n", 422, "required"),
        ("username,email,color\nada,a@example.com,red\n", 422, "unknown_field"),
        ("username,email,email\n", 422, "repeated"),
        (b"username,email\n\xff,x\n", 400, None),
        ('username,email\nada,a@example.com\n"bob,b@example.com\n', 400, None),
    ],
    ids=["empty", "no e-mail", "unknown", "repeated", "encoding", "open quote"],
)
def test_a_file_that_cannot_be_read_changes_nothing(
    app: Flask, admin: SignedInClient, text: str | bytes, status: int, code: str | None
) -> None:
    answer = send_csv(admin, text)

    problem = answer.get_json()
    assert answer.status_code == status
    assert problem["code"] == ("validation_failed" if code else "malformed_file")
    if code:
        assert code in [error["code"] for error in problem["errors"]]
    assert audit_rows(app, action="user.imported") == []


def test_bytes_that_are_not_utf_8_are_400(admin: SignedInClient) -> None:
    answer = admin.post(IMPORT, data=b'{"username": "\xff"}', headers={"Content-Type": NDJSON})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed_file")


def test_another_type_of_body_is_415(admin: SignedInClient) -> None:
    answer = admin.post(IMPORT, json=[])

    assert (answer.status_code, answer.get_json()["code"]) == (415, "unsupported_media_type")


def test_a_body_over_ten_mebibytes_is_413(admin: SignedInClient) -> None:
    answer = admin.post(IMPORT, data=b" " * (10 * 2**20 + 1), headers={"Content-Type": NDJSON})

    assert (answer.status_code, answer.get_json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("permitted", [True, False])
def test_a_file_is_read_only_with_the_permission_and_only_completely(
    make_user: MakeUser, log_in: LogIn, permitted: bool
) -> None:
    caller = log_in(make_user("robin", roles=["admin" if permitted else "moderator"]))
    file = io.BytesIO(json.dumps(row_of("ada")).encode())
    length = len(file.getvalue()) + (10 if permitted else 0)

    answer = caller.post(
        IMPORT,
        headers={"Content-Type": NDJSON},
        input_stream=file,
        environ_overrides={"CONTENT_LENGTH": str(length), "wsgi.input_terminated": True},
    )

    expected = (400, "malformed_request") if permitted else (403, "permission_denied")
    assert (answer.status_code, answer.get_json()["code"]) == expected
    assert (file.tell() > 0) is permitted


def test_a_file_with_too_many_rows_is_rejected_at_once(admin: SignedInClient) -> None:
    answer = send(admin, *["{}"] * 20_001)

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["code"] == "too_many_rows"


def test_an_import_requires_its_permission(make_user: MakeUser, log_in: LogIn) -> None:
    moderator = log_in(make_user("mod", roles=["moderator"]))

    assert send(moderator, row_of("ada")).get_json()["code"] == "permission_denied"


def test_an_import_with_roles_requires_the_permission_to_assign_them(
    admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    root = log_in(make_user("root-user", roles=["superadmin"]))
    root.post("/api/v1/roles/", json={"name": "importer", "permissions": ["users:import"]})
    importer = log_in(make_user("importer", roles=["importer"]))

    assert codes(send(importer, row_of("a1a"), row_of("b1b", roles=["user"]))) == [None, None]
    assert codes(send(importer, row_of("c1c", roles=["importer"]))) == ["permission_denied"]
    assert codes(send(admin, row_of("d1d", roles=["superadmin"]))) == ["permission_escalation"]
    assert codes(send(admin, row_of("e1e", roles=["moderator"]))) == [None]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "backend",
    [Backend.POSTGRESQL, pytest.param(Backend.SQLITE, marks=pytest.mark.slow)],
    ids=str,
    indirect=True,
)
def test_the_time_of_an_import_grows_with_its_rows(admin: SignedInClient) -> None:
    sent = itertools.count()

    def seconds(count: int) -> float:
        rows = [row_of(f"user-{next(sent)}", password_hash=BCRYPT) for _ in range(count)]
        begun = time.perf_counter()
        assert send(admin, *rows).get_json()["created"] == count
        return time.perf_counter() - begun

    seconds(100)  # What is made at the first use is not counted.

    # Eight times the rows; quadratic time would be 64 times as long.
    assert least_ratio(lambda: seconds(8000), lambda: seconds(1000), below=24) < 24
