"""Deletion of one's own account: who may, what is deleted, and what remains."""

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.mailbox import Mailbox
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def leave(session: SignedInClient, password: str = PASSWORD) -> tuple[int, str | None]:
    answer = session.delete("/api/v1/users/me", json={"current_password": password})
    return answer.status_code, (answer.get_json(silent=True) or {}).get("code")


def test_a_deletion_ends_all_sessions_and_keeps_the_audit_log(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    session, other = log_in(robin), log_in(robin)

    assert leave(session) == (204, None)

    assert [s.get("/api/v1/auth/me").status_code for s in (session, other)] == [401, 401]
    (row,) = audit_rows(app, action="user.deleted")
    assert (row.actor_username, str(row.target_id)) == ("robin", robin.id)
    assert len(audit_rows(app, action="auth.login")) == 2
    assert len(events(app, type_="session.revoked")) == 2


def test_the_name_and_address_can_be_used_again(robin: MadeUser, log_in: LogIn, app: Flask) -> None:
    leave(log_in(robin))

    answer = JsonClient(app).post(
        "/api/v1/auth/register",
        json={"username": "robin", "email": robin.email, "password": "violet-harbour-93-lamp"},
    )

    assert answer.status_code == 201
    assert answer.get_json()["id"] != robin.id


def test_a_deletion_removes_links_and_queued_mails(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn, mailbox: Mailbox
) -> None:
    client.post("/api/v1/auth/reset-password", json={"email": robin.email})
    token = mailbox.token()
    session = log_in(robin)
    body = {"new_email": "hood@example.com", "current_password": PASSWORD}
    session.post("/api/v1/auth/change-email", json=body)

    leave(session)

    body = {"token": token, "new_password": "granite-otter-57-teapot"}
    answer = client.post("/api/v1/auth/reset-password/confirm", json=body)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_token")
    assert mailbox.deliver() == []
    assert mails(app) == []


@pytest.mark.parametrize("body", [None, {}, {"password": PASSWORD}])
def test_deleting_the_own_account_needs_the_password(
    robin: MadeUser, log_in: LogIn, body: object
) -> None:
    session = log_in(robin)

    answer = session.delete("/api/v1/users/me", json=body)

    assert answer.status_code in (400, 415, 422)
    assert session.get("/api/v1/auth/me").status_code == 200


def test_wrong_passwords_count_towards_the_lockout(robin: MadeUser, log_in: LogIn) -> None:
    session = log_in(robin)

    answers = [leave(session, "wrong-password-1") for _ in range(5)]

    assert answers == [(401, "invalid_credentials")] * 5
    assert leave(session) == (429, "too_many_attempts")
    assert session.get("/api/v1/auth/me").status_code == 200


def test_one_of_two_superadmins_may_delete_their_account(
    make_user: MakeUser, log_in: LogIn
) -> None:
    chiefs = [log_in(make_user(name, roles=["superadmin"])) for name in ("one", "two")]

    assert leave(chiefs[0]) == (204, None)
    assert leave(chiefs[1]) == (409, "last_superadmin")


def test_deleting_the_own_account_needs_a_token(client: JsonClient) -> None:
    answer = client.delete("/api/v1/users/me", json={"current_password": PASSWORD})

    assert answer.status_code == 401
