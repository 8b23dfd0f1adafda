"""A 422 names every invalid field, and the OpenAPI document every member of a problem."""

from typing import Any

import pytest
from flask import Flask

from tests.support.authentication import set_mfa_enabled
from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.pages import PageReader, words
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.api.schemas.common import Problem
from userapi.errors import Members

# RFC 9457 §3.1, and the members that this service adds to every document.
ALWAYS = {"type", "title", "status", "detail", "instance", "code", "correlation_id"}
# RFC 6749 §5.2, in errors of /auth/token.
OF_TOKENS = {"error", "error_description"}


@pytest.fixture
def root(make_user: MakeUser) -> MadeUser:
    return make_user("root-user", roles=["superadmin"])


@pytest.fixture
def boss(root: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(root)


def named(answer: Any) -> set[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    body = answer.get_json()
    assert body["code"] == "validation_failed"
    return {(error["field"], error["code"]) for error in body["errors"]}


UNKNOWN = ("shoe_size", "unknown_field")
IDENTITY = {
    ("username", "invalid_username"),
    ("email", "invalid_email"),
    ("password", "password_too_short"),
}
FAULTY = {"username": "-", "email": "nobody", "password": "x7q", "shoe_size": 42}


def test_a_registration_reports_an_unknown_field_with_all_other_errors(client: JsonClient) -> None:
    """Only the unknown field was reported; the other errors appeared after it was fixed."""
    answer = client.post("/api/v1/auth/register", json={**FAULTY, "locale": "not a locale"})

    assert named(answer) >= {UNKNOWN, ("locale", "invalid_locale"), *IDENTITY}


def test_a_reserved_name_is_reported_with_an_unknown_field(client: JsonClient) -> None:
    body = {**FAULTY, "username": "admin"}

    assert ("username", "reserved_username") in named(
        client.post("/api/v1/auth/register", json=body)
    )


def test_a_missing_field_hides_no_other(client: JsonClient) -> None:
    answer = client.post("/api/v1/auth/register", json={"username": "-", "password": "x7q"})

    assert named(answer) >= {
        ("email", "required"),
        ("username", "invalid_username"),
        ("password", "password_too_short"),
    }


@pytest.mark.parametrize("extra", [{}, {"shoe_size": 42}])
def test_every_fault_of_a_new_user_is_named(boss: SignedInClient, extra: dict[str, Any]) -> None:
    body = {**FAULTY, "roles": ["user", "wizard"]}
    del body["shoe_size"]

    found = named(boss.post("/api/v1/users/", json={**body, **extra}))

    assert found >= {*IDENTITY, ("roles.1", "unknown_role")}
    assert (UNKNOWN in found) is bool(extra)


def test_callers_who_may_not_assign_roles_do_not_learn_which_exist(
    boss: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    boss.post("/api/v1/roles/", json={"name": "creator", "permissions": ["users:create"]})
    creator = log_in(make_user("creator", roles=["creator"]))

    found = named(creator.post("/api/v1/users/", json={**FAULTY, "roles": ["wizard"]}))

    assert not any(field.startswith("roles") for field, _ in found)


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("extra", [{}, {"shoe_size": 42}])
def test_every_fault_of_a_change_is_named(
    boss: SignedInClient, make_user: MakeUser, method: str, extra: dict[str, Any]
) -> None:
    body = {"username": "-", "email": "nobody", "roles": ["wizard"]}

    answer = getattr(boss, method)(f"/api/v1/users/{make_user('robin').id}", json={**body, **extra})

    found = named(answer)
    assert found >= {
        ("username", "invalid_username"),
        ("email", "invalid_email"),
        ("roles.0", "unknown_role"),
    }
    assert (UNKNOWN in found) is bool(extra)


@pytest.mark.parametrize("extra", [{}, {"shoe_size": 42}])
def test_every_fault_of_a_role_is_named(boss: SignedInClient, extra: dict[str, Any]) -> None:
    body = {"name": "UPPER", "permissions": ["a:b", "nothing"], "parents": ["wizard"]}
    boss.post("/api/v1/roles/", json={"name": "editor"})

    made = named(boss.post("/api/v1/roles/", json={**body, **extra}))
    changed = named(boss.put("/api/v1/roles/editor", json={**body, **extra}))

    both = {("permissions.1", "invalid_permission"), ("parents.0", "unknown_role")}
    assert made >= {("name", "invalid_role_name"), *both}
    assert changed >= {("name", "rename_refused"), *both}
    assert (UNKNOWN in made) is (UNKNOWN in changed) is bool(extra)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/api/v1/auth/change-password",
            {"current_password": PASSWORD, "new_password": "root-user"},
            ("new_password", "password_contains_username"),
        ),
        (
            "/api/v1/auth/reset-password/confirm",
            {"token": "x", "new_password": "x7q"},
            ("new_password", "password_too_short"),
        ),
        (
            "/api/v1/auth/change-email",
            {"current_password": PASSWORD, "new_email": "nobody"},
            ("new_email", "invalid_email"),
        ),
        (
            "/api/v1/users/{robin}/suspend",
            {"until": "2001-01-01T00:00:00Z"},
            ("until", "in_the_past"),
        ),
        (
            "/api/v1/users/bulk",
            {"action": "suspend", "user_ids": ["{robin}"], "role": "user"},
            ("role", "not_for_this_action"),
        ),
    ],
)
def test_an_unknown_field_is_reported_with_all_other_errors(
    boss: SignedInClient,
    make_user: MakeUser,
    path: str,
    body: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    robin = make_user("robin").id
    body = {name: [robin] if value == ["{robin}"] else value for name, value in body.items()} | {
        "shoe_size": 42
    }

    found = named(boss.post(path.replace("{robin}", robin), json=body))

    assert found >= {UNKNOWN, expected}


def test_every_faulty_parameter_of_a_query_is_named(boss: SignedInClient) -> None:
    answer = boss.get(
        "/api/v1/users/?shoe_size=42&sort=shoe_size&status=sleepy&locked=true&locked=false"
    )

    assert named(answer) == {
        UNKNOWN,
        ("sort", "invalid_sort"),
        ("status", "invalid_choice"),
        ("locked", "repeated"),
    }


def test_every_parameter_is_named_where_there_is_none(boss: SignedInClient) -> None:
    answer = boss.get("/api/v1/auth/me?shoe_size=42&hat_size=7")

    assert named(answer) == {UNKNOWN, ("hat_size", "unknown_field")}


def test_a_form_of_the_console_marks_every_faulty_field(app: Flask, root: MadeUser) -> None:
    reader = PageReader(app)
    reader.sign_in(root)
    reader.get("/users/new")

    answer = reader.post("/users/new", username="-", email="nobody", phone="none")

    assert answer.status_code == 422
    for name in ("username", "email", "phone"):
        assert f'id="{name}-error"' in answer.text, words(answer)


# Members of problems


def test_the_document_has_every_member_that_a_refusal_can_have() -> None:
    """The type checker allows only the members of `Members` in a problem."""
    members = set(Members.__annotations__)

    assert set(Problem().fields) == ALWAYS | {"errors"} | members | OF_TOKENS


def test_every_member_of_a_problem_has_an_example_in_the_document(client: JsonClient) -> None:
    examples = client.get("/openapi.json").get_json()["components"]["examples"].values()

    shown = {member for example in examples for member in example["value"]}

    assert shown == ALWAYS | {"errors"} | set(Members.__annotations__)


def test_refusals_have_no_member_that_the_document_lacks(
    boss: SignedInClient, client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    protected = make_user("protected", roles=["admin"])
    before = log_in(protected)
    set_mfa_enabled(boss.app, protected.id)
    admin = log_in(make_user("admin-user", roles=["admin"]))
    plain = log_in(make_user("plain"))
    robin = make_user("robin").id
    boss.post("/api/v1/roles/", json={"name": "editor"})
    boss.put(f"/api/v1/users/{robin}/roles", json={"roles": ["editor"]})
    answers = [
        plain.get("/api/v1/users/"),
        admin.put(f"/api/v1/users/{robin}/roles", json={"roles": ["superadmin"]}),
        boss.delete("/api/v1/roles/editor"),
        client.post("/api/v1/auth/register", json=FAULTY),
        client.get("/api/v1/auth/me"),
        client.get("/api/v1/nothing"),
        client.post(
            "/api/v1/auth/login",
            json={"username": protected.username, "password": protected.password},
        ),
        before.delete(f"/api/v1/users/{robin}/mfa"),
    ]

    of_tokens = client.post("/api/v1/auth/token", data={"grant_type": "password"})

    seen = set()
    # RFC 6749 §5.2 wants JSON.
    assert of_tokens.mimetype == "application/json"
    for answer in [*answers, of_tokens]:
        assert answer.mimetype == "application/problem+json" or answer is of_tokens
        assert answer.get_json().keys() <= Problem().fields.keys()
        seen |= answer.get_json().keys()

    assert seen == Problem().fields.keys()


def test_a_rejected_change_sends_no_mail(
    app: Flask, boss: SignedInClient, make_user: MakeUser
) -> None:
    boss.patch(
        f"/api/v1/users/{make_user('robin').id}",
        json={"email": "new@example.com", "roles": ["wizard"]},
    )

    assert Mailbox(app).deliver() == []
