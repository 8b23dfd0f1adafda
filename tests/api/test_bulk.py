"""Bulk changes: one action on many users."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, insert

from tests.support.facts import audit_rows, events
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.models import User
from userapi.infrastructure.database import (
    db,
    new_id,
    table_of,
    transaction,
)
from userapi.roles.models import UserRole
from userapi.wiring.services import Services

BULK = "/api/v1/users/bulk"
UNKNOWN = "0199c0de-0000-7000-8000-000000000000"

_users = table_of(User)
_user_roles = table_of(UserRole)


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.fixture
def three(make_user: MakeUser) -> list[str]:
    return [make_user(f"robin{number}").id for number in range(3)]


def run(client: SignedInClient, action: str, user_ids: list[Any], **more: Any) -> Any:
    return client.post(BULK, json={"action": action, "user_ids": user_ids, **more})


@contextmanager
def recorded_statements() -> Iterator[list[str]]:
    """Yield a list of the statements that the application sends meanwhile."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(db.engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(db.engine, "before_cursor_execute", record)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def test_every_user_has_a_result_in_order(
    app: Flask, admin: SignedInClient, three: list[str]
) -> None:
    answer = run(admin, "suspend", three, reason="Spam")

    assert answer.status_code == 200
    assert answer.get_json() == {
        "results": [{"id": user_id, "status": "ok"} for user_id in three],
        "succeeded": 3,
        "failed": 0,
    }
    rows = audit_rows(app, action="user.suspended")
    assert [row.target_id for row in rows] == three
    assert rows[0].details["reason"] == "Spam"
    assert len(events(app, type_="user.suspended")) == 3


def test_a_rejection_of_one_user_does_not_affect_others(
    app: Flask, admin: SignedInClient, three: list[str], make_user: MakeUser
) -> None:
    peer = make_user("peer", roles=["admin"]).id
    suspended = three[1]
    admin.post(f"/api/v1/users/{suspended}/suspend")

    answer = run(admin, "suspend", [peer, three[0], suspended, UNKNOWN, three[2]]).get_json()

    assert [result.get("code") for result in answer["results"]] == [
        "insufficient_rank",
        None,
        "invalid_status_transition",
        "not_found",
        None,
    ]
    assert (answer["succeeded"], answer["failed"]) == (2, 3)
    (denied,) = audit_rows(app, action="auth.permission_denied")
    assert (denied.target_id, denied.outcome) == (peer, "denied")


def test_all_refusals_of_a_request_are_one_audit_row(
    app: Flask, admin: SignedInClient, three: list[str], make_user: MakeUser
) -> None:
    """One request with a thousand denied users wrote a thousand rows."""
    peers = [make_user(f"peer{number}", roles=["admin"]).id for number in range(24)]
    own = admin.get("/api/v1/users/me").get_json()["id"]

    answer = run(admin, "delete", [*peers, three[0], own]).get_json()

    assert (answer["succeeded"], answer["failed"]) == (1, 25)
    assert {result.get("code") for result in answer["results"][:24]} == {"insufficient_rank"}
    (denied,) = audit_rows(app, action="auth.permission_denied")
    assert (denied.outcome, denied.target_id) == ("denied", None)
    assert denied.details == {
        "action": "delete",
        "code": "insufficient_rank",
        "codes": {"insufficient_rank": 24},
        "refused": 24,
        "user_ids": peers[:20],
    }


@pytest.mark.parametrize(
    ("action", "permission"),
    [
        ("suspend", "users:suspend"),
        ("activate", "users:suspend"),
        ("unlock", "users:unlock"),
        ("delete", "users:delete"),
        ("assign_role", "roles:assign"),
        ("remove_role", "roles:assign"),
    ],
)
def test_a_refusal_names_the_permission_of_its_action(
    make_user: MakeUser, log_in: LogIn, three: list[str], action: str, permission: str
) -> None:
    """The error named `users:suspend`, whatever the action."""
    more = {"role": "user"} if action.endswith("role") else {}

    answer = run(log_in(make_user("plain")), action, three, **more)

    assert code_of(answer) == (403, "permission_denied")
    assert answer.get_json()["permission"] == permission


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"action": ["delete"]}', b'{"action": "x"}', b""])
def test_permissions_are_checked_before_the_body(
    make_user: MakeUser, log_in: LogIn, body: bytes
) -> None:
    client = log_in(make_user("plain"))

    answer = client.post(BULK, data=body, content_type="application/json")

    assert code_of(answer) == (403, "permission_denied")


def test_a_repeated_id_is_processed_once(
    app: Flask, admin: SignedInClient, three: list[str]
) -> None:
    answer = run(admin, "suspend", [three[0], three[1], three[0].upper()]).get_json()

    assert [result["id"] for result in answer["results"]] == three[:2]
    assert len(audit_rows(app, action="user.suspended")) == 2


def test_suspended_users_are_activated_again(admin: SignedInClient, three: list[str]) -> None:
    run(admin, "suspend", three)

    assert run(admin, "activate", three).get_json()["succeeded"] == 3
    assert admin.get(f"/api/v1/users/{three[0]}").get_json()["status"] == "active"


def test_users_are_unlocked_and_deleted(
    app: Flask, admin: SignedInClient, three: list[str]
) -> None:
    assert run(admin, "unlock", three).get_json()["succeeded"] == 3
    assert run(admin, "delete", three, reason="Closed").get_json()["succeeded"] == 3

    assert admin.get(f"/api/v1/users/{three[0]}").status_code == 404
    assert audit_rows(app, action="user.deleted")[0].details["reason"] == "Closed"


def test_a_role_is_assigned_and_removed(
    app: Flask, admin: SignedInClient, three: list[str]
) -> None:
    given = run(admin, "assign_role", three, role="moderator", reason="Shift").get_json()
    again = run(admin, "assign_role", three, role="moderator").get_json()
    roles = admin.get(f"/api/v1/users/{three[0]}/roles").get_json()["roles"]
    taken = run(admin, "remove_role", three, role="moderator").get_json()

    assert (given["succeeded"], again["succeeded"], taken["succeeded"]) == (3, 3, 3)
    assert roles == ["moderator", "user"]
    assert admin.get(f"/api/v1/users/{three[0]}/roles").get_json()["roles"] == ["user"]
    rows = audit_rows(app, action="user.roles_changed")
    assert len(rows) == 6
    assert rows[0].details == {"reason": "Shift"}


def test_a_role_with_more_permissions_than_the_callers_cannot_be_granted(
    admin: SignedInClient, three: list[str]
) -> None:
    answer = run(admin, "assign_role", three[:1], role="superadmin").get_json()

    assert answer["results"][0]["code"] == "permission_escalation"


def test_the_last_superadmin_remains(make_user: MakeUser, log_in: LogIn) -> None:
    root = make_user("root-user", roles=["superadmin"])

    answer = run(log_in(root), "remove_role", [root.id], role="superadmin").get_json()

    assert answer["results"] == [{"id": root.id, "status": "error", "code": "last_superadmin"}]


def test_administrators_cannot_remove_themselves(make_user: MakeUser, log_in: LogIn) -> None:
    boss = make_user("boss", roles=["admin"])

    answer = run(log_in(boss), "delete", [boss.id]).get_json()

    assert answer["results"][0]["code"] == "self_action_refused"


@pytest.mark.parametrize(
    ("action", "more"),
    [("delete", {}), ("assign_role", {"role": "user"}), ("remove_role", {"role": "user"})],
)
def test_each_action_requires_its_permission(
    make_user: MakeUser, log_in: LogIn, three: list[str], action: str, more: dict[str, str]
) -> None:
    moderator = log_in(make_user("mod", roles=["moderator"]))

    assert code_of(run(moderator, action, three, **more)) == (403, "permission_denied")
    assert run(moderator, "suspend", three).get_json()["succeeded"] == 3


def test_without_any_of_the_permissions_the_request_is_refused(
    make_user: MakeUser, log_in: LogIn, three: list[str]
) -> None:
    robin = log_in(make_user("plain"))

    assert code_of(run(robin, "suspend", three)) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"action": "promote", "user_ids": [UNKNOWN]}, "action", "invalid_choice"),
        ({"user_ids": [UNKNOWN]}, "action", "required"),
        ({"action": "suspend", "user_ids": []}, "user_ids", "too_short"),
        ({"action": "suspend", "user_ids": [UNKNOWN] * 1001}, "user_ids", "too_long"),
        ({"action": "suspend", "user_ids": [UNKNOWN, "robin"]}, "user_ids.1", "invalid_id"),
        ({"action": "suspend", "user_ids": [7]}, "user_ids.0", "invalid_id"),
        ({"action": "suspend", "user_ids": UNKNOWN}, "user_ids", "wrong_type"),
        ({"action": "assign_role", "user_ids": [UNKNOWN]}, "role", "required"),
        (
            {"action": "assign_role", "user_ids": [UNKNOWN], "role": "wizard"},
            "role",
            "unknown_role",
        ),
        (
            {"action": "suspend", "user_ids": [UNKNOWN], "role": "user"},
            "role",
            "not_for_this_action",
        ),
    ],
)
def test_a_bad_field_is_named(
    admin: SignedInClient, body: dict[str, Any], field: str, code: str
) -> None:
    answer = admin.post(BULK, json=body)

    assert answer.status_code == 422
    assert (field, code) in [(e["field"], e["code"]) for e in answer.get_json()["errors"]]


def test_each_user_costs_the_same_few_statements(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    user_ids = [new_id() for _ in range(150)]
    now = services.clock.now()
    with app.app_context(), transaction() as session:
        session.execute(
            insert(_users),
            [
                {
                    "id": user_id,
                    "username": f"u{number}",
                    "email": f"u{number}@example.com",
                    "email_normalized": f"u{number}@example.com",
                    "email_verified": True,
                    "must_change_password": False,
                    "status": "active",
                    "attributes": {},
                    "search_text": f"u{number}",
                    "version": 1,
                    "access_version": 1,
                    "created_at": now,
                    "updated_at": now,
                }
                for number, user_id in enumerate(user_ids)
            ],
        )
        session.execute(
            insert(_user_roles), [{"user_id": u, "role_name": "user"} for u in user_ids]
        )

    ids = [str(user_id) for user_id in user_ids]

    def statements_for(some: list[str]) -> int:
        with app.app_context(), recorded_statements() as statements:
            assert run(admin, "suspend", some).get_json()["succeeded"] == len(some)
        return len(statements)

    _, of_40, of_100 = (statements_for(some) for some in (ids[:10], ids[10:50], ids[50:]))

    # A request that takes seconds reads once more what is cached for a shorter time.
    per_user = round((of_100 - of_40) / 60)
    assert per_user <= 15
    assert abs(of_100 - of_40 - 60 * per_user) <= 5
    assert 0 <= of_40 - 40 * per_user <= 5
