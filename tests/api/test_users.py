"""Administration of users, and the own profile."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.mailbox import Mailbox, plain_text
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import UserStatus
from userapi.clock import ManualClock

pytestmark = pytest.mark.core

UNKNOWN = "01900000-0000-7000-8000-000000000000"
NEW = {
    "username": "ada",
    "email": "ada@example.com",
    "password": "violet-harbour-93-lantern",
}


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.fixture
def superadmin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("chief", roles=["superadmin"]))


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def path(user: MadeUser | str, *rest: str) -> str:
    return "/".join(["/api/v1/users", user if isinstance(user, str) else user.id, *rest])


# Creating


def test_an_administrator_creates_a_user(app: Flask, admin: SignedInClient) -> None:
    answer = admin.post(
        "/api/v1/users/", json={**NEW, "roles": ["moderator"], "metadata": {"team": "vision"}}
    )

    user = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == path(user["id"])
    assert answer.headers["ETag"] == '"1"'
    assert (user["status"], user["roles"]) == ("active", ["moderator"])
    assert user["metadata"] == {"team": "vision"}
    (row,) = audit_rows(app, action="user.created")[1:]
    assert (row.actor_username, row.target_id) == ("boss", user["id"])
    assert events(app, type_="user.created")[-1].subject == user["id"]


def test_without_a_password_the_user_is_invited(app: Flask, admin: SignedInClient) -> None:
    answer = admin.post("/api/v1/users/", json={"username": "ada", "email": "ada@example.com"})

    assert answer.get_json()["status"] == "pending"
    assert [(m.kind, m.recipient) for m in mails(app)] == [("invitation", "ada@example.com")]
    assert len(audit_rows(app, action="user.invited")) == 1


def test_a_role_with_more_permissions_than_the_callers_cannot_be_granted(
    app: Flask, admin: SignedInClient
) -> None:
    answer = admin.post("/api/v1/users/", json={**NEW, "roles": ["superadmin"]})

    assert answer.status_code == 403
    assert answer.get_json()["code"] == "permission_escalation"
    assert admin.get("/api/v1/users/?search=ada").get_json()["items"] == []
    assert audit_rows(app, action="auth.permission_denied")[-1].outcome == "denied"


def test_an_unknown_role_is_named(admin: SignedInClient) -> None:
    answer = admin.post("/api/v1/users/", json={**NEW, "roles": ["user", "wizard"]})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "roles.1"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 17_000}}, "metadata"),
        ({"metadata": {"x": "\u0007"}}, "metadata"),
        ({"metadata": {"x": 10**30}}, "metadata"),
        ({"status": "asleep"}, "status"),
        ({"roles": "admin"}, "roles"),
        ({"must_change_password": 1}, "must_change_password"),
    ],
)
def test_a_bad_field_of_a_new_user_is_named(
    admin: SignedInClient, changes: dict[str, Any], field: str
) -> None:
    answer = admin.post("/api/v1/users/", json={**NEW, **changes})

    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.get_json()["errors"]}


def test_a_repeated_create_happens_once(app: Flask, admin: SignedInClient) -> None:
    key = {"Idempotency-Key": "create-ada-1"}

    first = admin.post("/api/v1/users/", json=NEW, headers=key)
    again = admin.post("/api/v1/users/", json=NEW, headers=key)
    other = admin.post("/api/v1/users/", json={**NEW, "username": "eve"}, headers=key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.data == again.data
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replay" not in first.headers
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_key_reused")
    assert len([e for e in events(app, type_="user.created")]) == 2  # The administrator and Ada.


def test_a_rejected_create_is_not_stored_under_its_key(admin: SignedInClient) -> None:
    key = {"Idempotency-Key": "create-ada-2"}
    refused = admin.post("/api/v1/users/", json={**NEW, "password": "weak"}, headers=key)

    accepted = admin.post("/api/v1/users/", json=NEW, headers=key)

    assert (refused.status_code, accepted.status_code) == (422, 201)


def test_a_stored_reply_is_dropped_after_a_day(
    make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    boss = make_user("boss", roles=["admin"])
    key = {"Idempotency-Key": "create-ada-3"}
    log_in(boss).post("/api/v1/users/", json=NEW, headers=key)
    clock.advance(hours=24, seconds=1)

    answer = log_in(boss).post("/api/v1/users/", json=NEW, headers=key)

    assert answer.status_code == 409


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "é"])
def test_a_bad_idempotency_key_is_400(admin: SignedInClient, key: str) -> None:
    answer = admin.post("/api/v1/users/", json=NEW, headers={"Idempotency-Key": key})

    assert answer.status_code == 400
    assert answer.get_json()["code"] == "invalid_idempotency_key"


# Reading


def test_users_are_listed_in_pages(admin: SignedInClient, make_user: MakeUser) -> None:
    for number in range(5):
        make_user(f"user{number}")

    page = admin.get("/api/v1/users", query={"sort": "username", "page_size": 2, "page": 2})

    body = page.get_json()
    assert [user["username"] for user in body["items"]] == ["user1", "user2"]
    assert (body["total"], body["total_is_exact"], body["pages"]) == (6, True, 3)
    assert (body["page"], body["page_size"]) == (2, 2)


def test_a_cursor_continues_through_the_whole_list(
    admin: SignedInClient, make_user: MakeUser
) -> None:
    for number in range(5):
        make_user(f"user{number}")

    seen: list[str] = []
    cursor = None
    while True:
        query = {"sort": "-username", "page_size": 2} | ({"cursor": cursor} if cursor else {})
        body = admin.get("/api/v1/users/", query=query).get_json()
        seen += [user["username"] for user in body["items"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break

    assert seen == ["user4", "user3", "user2", "user1", "user0", "boss"]


def test_a_changed_cursor_is_refused(admin: SignedInClient, make_user: MakeUser) -> None:
    for number in range(3):
        make_user(f"user{number}")
    cursor = admin.get("/api/v1/users/?page_size=1").get_json()["next_cursor"]
    flipped = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]

    for query in (
        {"page_size": 1, "cursor": flipped},
        {"page_size": 1, "cursor": cursor, "sort": "username"},
        {"page_size": 1, "cursor": cursor, "status": "active"},
        {"cursor": "nonsense"},
        {"cursor": "é"},
        {"cursor": cursor * 100},
        {"cursor": cursor + "\x00"},
    ):
        answer = admin.get("/api/v1/users/", query=query)
        assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("page=501", "page"),
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("sort=password_hash", "sort"),
        ("sort=username,username", "sort"),
        ("status=asleep", "status"),
        ("locked=1", "locked"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-02-30T00:00:00Z", "created_after"),
    ],
)
def test_a_bad_query_is_422(admin: SignedInClient, query: str, field: str) -> None:
    answer = admin.get(f"/api/v1/users/?{query}")

    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"search": "OBI"}, ["robin"]),
        ({"search": "example.com"}, ["boss", "robin", "sus"]),
        ({"search": "%"}, []),
        ({"search": "_"}, []),
        ({"search": "\\"}, []),
        ({"status": "suspended"}, ["sus"]),
        ({"role": "admin"}, ["boss"]),
        ({"role": "nothing"}, []),
        ({"role": "user", "status": "suspended"}, ["sus"]),
        ({"role": "admin", "status": "suspended"}, []),
        ({"email": "ROBIN@example.com"}, ["robin"]),
        ({"locked": "true"}, []),
        ({"locked": "false", "role": "user"}, ["robin", "sus"]),
        ({"last_login_after": "2020-01-01T00:00:00Z"}, ["boss"]),
        ({"created_before": "2020-01-01T00:00:00Z"}, []),
        ({"status": "active", "role": "user", "search": "rob"}, ["robin"]),
    ],
)
def test_filters_combine(
    admin: SignedInClient,
    robin: MadeUser,
    make_user: MakeUser,
    query: dict[str, str],
    names: list[str],
) -> None:
    make_user("sus", status=UserStatus.SUSPENDED)

    body = admin.get("/api/v1/users/", query=query | {"sort": "username"}).get_json()

    assert [user["username"] for user in body["items"]] == names
    assert body["total"] == len(names)


def test_filters_by_role_and_status_follow_every_change(
    admin: SignedInClient, robin: MadeUser, make_user: MakeUser
) -> None:
    def found(role: str, status: str) -> list[str]:
        body = admin.get("/api/v1/users/", query={"role": role, "status": status}).get_json()
        return [user["username"] for user in body["items"]]

    admin.post(f"{path(robin)}/suspend", json={})
    assert (found("user", "suspended"), found("user", "active")) == (["robin"], [])

    admin.put(f"{path(robin)}/roles", json={"roles": ["moderator"]})
    assert (found("moderator", "suspended"), found("user", "suspended")) == (["robin"], [])

    admin.post(f"{path(robin)}/activate", json={})
    assert (found("moderator", "suspended"), found("moderator", "active")) == ([], ["robin"])


def test_users_without_permissions_can_read_only_themselves(
    robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    client = log_in(robin)
    other = make_user("other")

    assert client.get(path(robin)).get_json() == client.get("/api/v1/users/me").get_json()
    hidden, missing = client.get(path(other)), client.get(path(UNKNOWN))
    assert (hidden.status_code, missing.status_code) == (404, 404)
    assert hidden.get_json()["code"] == missing.get_json()["code"] == "not_found"


# Changing


@pytest.mark.parametrize("method", ["put", "patch"])
def test_users_change_their_profile(
    robin: MadeUser, log_in: LogIn, method: str, app: Flask
) -> None:
    client = log_in(robin)
    call = getattr(client, method)

    first = call("/api/v1/users/me", json={"first_name": "Robin", "locale": "de-CH"})
    second = call("/api/v1/users/me", json={"first_name": None})

    assert first.status_code == 200
    assert second.get_json()["first_name"] is None
    assert second.get_json()["locale"] == "de-CH"
    row = audit_rows(app, action="user.updated")[0]
    assert row.changes == {"first_name": [None, "Robin"], "locale": [None, "de-CH"]}
    assert events(app, type_="user.updated")[0].data["changed"] == ["first_name", "locale"]


@pytest.mark.parametrize("field", ["roles", "status", "email", "metadata", "username"])
def test_fields_for_administrators_are_unknown_in_the_own_profile(
    robin: MadeUser, log_in: LogIn, field: str
) -> None:
    client = log_in(robin)

    mine = client.patch("/api/v1/users/me", json={field: "x"})
    by_id = client.patch(
        path(robin),
        json=(
            {field: ["user"] if field == "roles" else "active"}
            if field in ("roles", "status")
            else {field: {} if field == "metadata" else "x@example.com"}
        ),
    )

    assert (mine.status_code, mine.get_json()["errors"][0]["code"]) == (422, "unknown_field")
    assert (by_id.status_code, by_id.get_json()["code"]) == (403, "permission_denied")


def test_an_administrator_changes_a_user(admin: SignedInClient, robin: MadeUser) -> None:
    answer = admin.patch(
        path(robin), json={"email": "new@example.com", "metadata": {"a": 1}, "last_name": "Hood"}
    )

    user = answer.get_json()
    assert (user["email"], user["metadata"], user["last_name"]) == (
        "new@example.com",
        {"a": 1},
        "Hood",
    )
    assert answer.headers["ETag"] == '"2"'


@pytest.mark.parametrize("method", ["put", "patch"])
def test_the_own_address_changes_only_by_mail(
    app: Flask, make_user: MakeUser, log_in: LogIn, method: str
) -> None:
    """With `users:update` a stolen token was enough to hijack the account."""
    boss = make_user("boss", roles=["superadmin"])
    client = log_in(boss)

    answer = getattr(client, method)(
        path(boss), json={"email": "thief@example.com", "first_name": "B"}
    )

    assert (answer.status_code, answer.get_json()["code"]) == (409, "self_action_refused")
    me = client.get("/api/v1/users/me").get_json()
    assert (me["email"], me["first_name"]) == (boss.email, None)
    assert not audit_rows(app, action="user.email_changed")


@pytest.mark.parametrize("method", ["put", "patch"])
def test_the_former_address_gets_a_mail_when_an_administrator_changes_it(
    app: Flask, admin: SignedInClient, robin: MadeUser, method: str
) -> None:
    getattr(admin, method)(path(robin), json={"email": "new@example.com"})

    (mail,) = Mailbox(app).deliver()
    assert mail["To"] == robin.email
    assert "An administrator changed the e-mail address of robin" in plain_text(mail)
    assert "new@example.com" not in mail.as_string()


def test_an_unchanged_address_sends_no_mail(
    app: Flask, admin: SignedInClient, robin: MadeUser
) -> None:
    admin.patch(path(robin), json={"email": robin.email, "first_name": "Robin"})

    assert Mailbox(app).deliver() == []


def test_a_stale_write_is_refused(admin: SignedInClient, robin: MadeUser) -> None:
    etag = admin.get(path(robin)).headers["ETag"]
    first = admin.patch(path(robin), json={"first_name": "A"}, headers={"If-Match": etag})

    stale = admin.patch(path(robin), json={"first_name": "B"}, headers={"If-Match": etag})
    starred = admin.patch(path(robin), json={"first_name": "C"}, headers={"If-Match": "*"})

    assert first.status_code == 200
    assert (stale.status_code, stale.get_json()["code"]) == (412, "stale_resource")
    assert starred.get_json()["first_name"] == "C"


def test_a_name_in_use_is_a_conflict(admin: SignedInClient, robin: MadeUser) -> None:
    answer = admin.patch(path(robin), json={"username": "boss"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "username_taken")


def test_two_changes_in_one_request_make_two_rows(
    app: Flask, admin: SignedInClient, robin: MadeUser
) -> None:
    admin.patch(path(robin), json={"first_name": "R", "roles": ["moderator"]})

    actions = [r.action for r in audit_rows(app) if r.target_id == robin.id]
    assert actions[-2:] == ["user.updated", "user.roles_changed"]


# Roles


def test_changed_roles_are_effective_with_the_next_request(
    admin: SignedInClient, robin: MadeUser, log_in: LogIn, app: Flask
) -> None:
    client = log_in(robin)
    assert client.get("/api/v1/users/").status_code == 403

    answer = admin.put(path(robin, "roles"), json={"roles": ["moderator"]})

    assert answer.get_json() == {"roles": ["moderator"]}
    assert client.get("/api/v1/users/").status_code == 200
    admin.put(path(robin, "roles"), json={"roles": []})
    assert client.get("/api/v1/users/").status_code == 403
    assert admin.get(path(robin, "roles")).get_json() == {"roles": ["user"]}
    assert audit_rows(app, action="user.roles_changed")[0].changes == {
        "roles": [["user"], ["moderator"]]
    }


def test_users_of_equal_rank_cannot_change_each_other(
    admin: SignedInClient, make_user: MakeUser, app: Flask
) -> None:
    peer = make_user("peer", roles=["admin"])

    for answer in (
        admin.patch(path(peer), json={"first_name": "X"}),
        admin.put(path(peer, "roles"), json={"roles": ["user"]}),
        admin.post(path(peer, "suspend")),
        admin.delete(path(peer)),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "insufficient_rank")


def test_superadmins_outrank_each_other_but_the_last_one_remains(
    superadmin: SignedInClient, make_user: MakeUser
) -> None:
    peer = make_user("peer", roles=["superadmin"])
    me = superadmin.get("/api/v1/auth/me").get_json()["id"]

    demoted = superadmin.put(path(peer, "roles"), json={"roles": ["user"]})
    last = superadmin.put(path(me, "roles"), json={"roles": ["user"]})

    assert demoted.status_code == 200
    assert (last.status_code, last.get_json()["code"]) == (409, "last_superadmin")


# Status


def test_a_suspension_is_effective_at_once(
    app: Flask, admin: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    client = log_in(robin)

    answer = admin.post(path(robin, "suspend"), json={"reason": "Chargeback"})

    assert answer.get_json()["status"] == "suspended"
    assert answer.get_json()["status_reason"] == "Chargeback"
    assert client.get("/api/v1/auth/me").get_json()["code"] == "token_revoked"
    refreshed = client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})
    assert refreshed.get_json()["code"] == "token_revoked"
    (row,) = audit_rows(app, action="user.suspended")
    assert row.changes == {"status": ["active", "suspended"]}
    assert [e.type for e in events(app)][-2:] == ["user.suspended", "session.revoked"]


def test_an_expired_suspension_is_lifted_at_log_in(
    app: Flask, client: JsonClient, admin: SignedInClient, robin: MadeUser, clock: ManualClock
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    admin.post(path(robin, "suspend"), json={"until": until})
    login = {"username": "robin", "password": robin.password}
    assert client.post("/api/v1/auth/login", json=login).status_code == 403

    clock.advance(hours=1, seconds=1)

    assert client.post("/api/v1/auth/login", json=login).status_code == 200
    assert len(audit_rows(app, action="user.activated")) == 1


@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "tomorrow", 7])
def test_a_suspension_ends_in_the_future(
    admin: SignedInClient, robin: MadeUser, until: Any
) -> None:
    answer = admin.post(path(robin, "suspend"), json={"until": until})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "until"


def test_only_allowed_status_transitions_succeed(
    admin: SignedInClient, robin: MadeUser, make_user: MakeUser
) -> None:
    pending = make_user("newcomer", status=UserStatus.PENDING)

    assert admin.post(path(robin, "activate")).get_json()["code"] == "invalid_status_transition"
    assert admin.post(path(robin, "suspend")).status_code == 200
    assert admin.post(path(robin, "suspend")).get_json()["code"] == "invalid_status_transition"
    assert admin.patch(path(robin), json={"status": "pending"}).status_code == 409
    assert admin.post(path(robin, "activate")).get_json()["status"] == "active"
    assert admin.post(path(pending, "activate")).get_json()["status"] == "active"


def test_a_locked_user_is_shown_and_unlocked(
    app: Flask, client: JsonClient, admin: SignedInClient, robin: MadeUser
) -> None:
    for _ in range(5):
        client.post("/api/v1/auth/login", json={"username": "robin", "password": "wrong-one-1"})
    assert admin.get(path(robin)).get_json()["locked_until"] is not None
    listed = admin.get("/api/v1/users/?locked=true").get_json()["items"]
    assert [user["username"] for user in listed] == ["robin"]

    answer = admin.post(path(robin, "unlock"))

    assert answer.get_json()["locked_until"] is None
    login = client.post(
        "/api/v1/auth/login", json={"username": "robin", "password": robin.password}
    )
    assert login.status_code == 200
    assert len(events(app, type_="user.unlocked")) == 1


# Deleting


def test_a_deleted_user_is_not_found_and_their_audit_rows_remain(
    app: Flask, client: JsonClient, admin: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)

    answer = admin.delete(path(robin))

    assert (answer.status_code, answer.data) == (204, b"")
    assert admin.get(path(robin)).status_code == 404
    assert session.get("/api/v1/auth/me").get_json()["code"] == "token_revoked"
    assert audit_rows(app, action="user.deleted")[0].target_id == robin.id
    assert audit_rows(app, action="auth.login")[-1].actor_id is not None
    again = client.post(
        "/api/v1/auth/register", json={**NEW, "username": "robin", "email": robin.email}
    )
    assert again.status_code == 201


def test_administrators_cannot_remove_themselves(
    admin: SignedInClient, superadmin: SignedInClient
) -> None:
    for client in (admin, superadmin):
        me = client.get("/api/v1/auth/me").get_json()["id"]

        for answer in (client.delete(path(me)), client.post(path(me, "suspend"))):
            assert (answer.status_code, answer.get_json()["code"]) == (409, "self_action_refused")


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", []),
        ("PATCH", []),
        ("DELETE", []),
        ("POST", ["suspend"]),
        ("POST", ["activate"]),
        ("POST", ["unlock"]),
        ("GET", ["roles"]),
    ],
)
def test_an_unknown_user_is_404(admin: SignedInClient, method: str, rest: list[str]) -> None:
    body: dict[str, str] | None = {} if method in ("PATCH", "POST") else None

    answer = admin.request(method, path(UNKNOWN, *rest), json=body)

    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")


def test_an_empty_search_does_not_change_later_searches(make_user: MakeUser, log_in: LogIn) -> None:
    """The cached query of an empty search, without a condition, was used for all searches."""
    admin = log_in(make_user("boss", roles=["admin"]))
    make_user("robin")

    everybody = admin.get("/api/v1/users/", query={"search": ""}).get_json()
    few = [
        admin.get("/api/v1/users/", query={"search": text}).get_json()["total"]
        for text in ("%", "zz", "\U0001f680")
    ]

    assert (everybody["total"], few) == (2, [0, 0, 0])
