"""Administrators list and end other users' sessions."""

from typing import Any

import pytest
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient

UNKNOWN = "0199c0de-0000-7000-8000-000000000000"


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def test_sessions_of_a_user_are_listed(
    admin: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    mine = log_in(robin)

    items = admin.get(f"/api/v1/users/{robin.id}/sessions").get_json()["items"]

    assert [item["id"] for item in items] == [mine.session_id]
    assert items[0]["current"] is False


def test_one_session_of_a_user_is_ended_at_once(
    app: Flask, admin: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    gone, kept = log_in(robin), log_in(robin)

    answer = admin.delete(f"/api/v1/users/{robin.id}/sessions/{gone.session_id}")

    assert answer.status_code == 204
    assert code_of(gone.get("/api/v1/users/me")) == (401, "token_revoked")
    assert kept.get("/api/v1/users/me").status_code == 200
    (row,) = audit_rows(app, action="session.revoked")
    assert (row.actor_username, row.target_id) == ("boss", gone.session_id)


def test_all_sessions_of_a_user_are_ended_at_once(
    admin: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    clients = [log_in(robin), log_in(robin)]

    answer = admin.delete(f"/api/v1/users/{robin.id}/sessions")

    assert (answer.status_code, answer.get_json()) == (200, {"revoked": 2})
    assert [c.get("/api/v1/users/me").status_code for c in clients] == [401, 401]


def test_an_unknown_session_or_user_is_404(
    admin: SignedInClient, robin: MadeUser, log_in: LogIn, make_user: MakeUser
) -> None:
    elsewhere = log_in(make_user("other")).session_id

    assert admin.delete(f"/api/v1/users/{robin.id}/sessions/{UNKNOWN}").status_code == 404
    assert admin.delete(f"/api/v1/users/{robin.id}/sessions/{elsewhere}").status_code == 404
    assert admin.delete(f"/api/v1/users/{robin.id}/sessions/nonsense").status_code == 404
    assert admin.get(f"/api/v1/users/{UNKNOWN}/sessions").status_code == 404
    assert admin.delete(f"/api/v1/users/{UNKNOWN}/sessions").status_code == 404


def test_ending_sessions_needs_rank_and_permission(
    admin: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    peer = make_user("peer", roles=["admin"])
    session_id = log_in(peer).session_id
    moderator = log_in(make_user("mod", roles=["moderator"]))

    assert code_of(admin.delete(f"/api/v1/users/{peer.id}/sessions")) == (403, "insufficient_rank")
    assert code_of(admin.delete(f"/api/v1/users/{peer.id}/sessions/{session_id}")) == (
        403,
        "insufficient_rank",
    )
    assert moderator.get(f"/api/v1/users/{peer.id}/sessions").status_code == 200
    assert code_of(moderator.delete(f"/api/v1/users/{peer.id}/sessions")) == (
        403,
        "permission_denied",
    )
