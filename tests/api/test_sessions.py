"""Sessions: refreshing, logging out, and the validity of tokens."""

from datetime import timedelta
from uuid import UUID

import jwt
import pytest
from flask import Flask
from sqlalchemy import update

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import User
from userapi.actor import system_actor
from userapi.authentication.tokens import AccessGrant
from userapi.clock import ManualClock
from userapi.infrastructure.database import transaction
from userapi.sessions.authentication_level import PWD, authenticated_by
from userapi.wiring.services import Services

pytestmark = pytest.mark.core

NEW_PASSWORD = "granite-otter-57-teapot"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def refresh(client: JsonClient, token: str) -> tuple[int, dict[str, str]]:
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": token})
    return answer.status_code, answer.get_json()


def test_an_inactive_user_cannot_use_a_session_that_was_not_revoked(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    """A suspension ends all sessions; a status changed by SQL must be effective, too."""
    client = log_in(robin)
    with app.app_context(), transaction() as session:
        session.execute(update(User).where(User.username == "robin").values(status="suspended"))

    assert refresh(client, client.refresh_token)[1]["code"] == "token_revoked"
    assert client.get("/api/v1/auth/verify").get_json()["code"] == "token_revoked"


def test_me_shows_the_user_what_they_may_do_and_the_session(
    make_user: MakeUser, log_in: LogIn
) -> None:
    client = log_in(make_user("mod", roles=["moderator"]))

    me = client.get("/api/v1/auth/me").get_json()

    assert me["username"] == "mod"
    assert me["session_id"] == client.session_id
    assert me["permissions"] == [
        "sessions:read",
        "stats:read",
        "users:read",
        "users:suspend",
        "users:unlock",
    ]


def test_verify_reports_the_state_of_the_token(robin: MadeUser, log_in: LogIn) -> None:
    client = log_in(robin)

    answer = client.get("/api/v1/auth/verify").get_json()

    assert answer["active"] is True
    assert (answer["user_id"], answer["session_id"]) == (robin.id, client.session_id)
    assert (answer["roles"], answer["permissions"]) == (["user"], [])


def test_an_access_token_has_the_claims_of_the_standard(robin: MadeUser, log_in: LogIn) -> None:
    token = log_in(robin).access_token

    claims = jwt.decode(token, options={"verify_signature": False})

    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert {"iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"} < claims.keys()
    assert claims["sub"] == robin.id
    assert claims["roles"] == ["user"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(robin: MadeUser, log_in: LogIn, scheme: str) -> None:
    client = log_in(robin)

    answer = JsonClient(client.app).get(
        "/api/v1/auth/me", headers={"Authorization": f"{scheme} {client.access_token}"}
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("header", "code", "challenge"),
    [
        (None, "authentication_required", "Bearer"),
        ("Basic cm9iaW46eA==", "authentication_required", "Bearer"),
        ("Bearer", "token_invalid", 'Bearer error="invalid_token"'),
        ("Bearer nonsense", "token_invalid", 'Bearer error="invalid_token"'),
        ("Bearer a.b.c", "token_invalid", 'Bearer error="invalid_token"'),
    ],
)
def test_a_request_without_a_good_token_is_challenged(
    client: JsonClient, header: str | None, code: str, challenge: str
) -> None:
    answer = client.get("/api/v1/auth/me", headers={"Authorization": header} if header else {})

    assert answer.status_code == 401
    assert answer.get_json()["code"] == code
    assert answer.headers["WWW-Authenticate"].startswith(challenge)


def test_an_expired_token_has_its_own_code(
    robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = log_in(robin)
    clock.advance(minutes=30, seconds=9)
    assert client.get("/api/v1/auth/me").status_code == 200  # Within the leeway.

    clock.advance(seconds=2)

    assert client.get("/api/v1/auth/me").get_json()["code"] == "token_expired"


def test_a_refresh_gives_a_new_pair_for_the_same_session(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = log_in(robin)
    clock.advance(seconds=5)

    status, pair = refresh(client, client.refresh_token)

    assert status == 200
    assert pair["session_id"] == client.session_id
    assert pair["refresh_token"] != client.refresh_token
    assert "user" not in pair
    assert client.as_user(pair["access_token"]).get("/api/v1/auth/me").status_code == 200
    assert len(audit_rows(app, action="auth.refresh")) == 1


def test_the_previous_token_gets_the_same_successor_within_the_grace_period(
    robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = log_in(robin)

    _, first = refresh(client, client.refresh_token)
    clock.advance(seconds=9)
    status, again = refresh(client, client.refresh_token)

    assert status == 200
    assert again["refresh_token"] == first["refresh_token"]
    assert refresh(client, first["refresh_token"])[0] == 200


def test_a_predecessor_that_comes_late_ends_the_session(
    app: Flask, robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = log_in(robin)
    _, pair = refresh(client, client.refresh_token)
    clock.advance(seconds=11)

    status, problem = refresh(client, client.refresh_token)

    assert (status, problem["code"]) == (401, "refresh_token_reused")
    assert refresh(client, pair["refresh_token"])[1]["code"] == "token_revoked"
    later = client.as_user(pair["access_token"]).get("/api/v1/auth/me")
    assert later.get_json()["code"] == "token_revoked"
    assert len(audit_rows(app, action="auth.refresh_reuse_detected")) == 1
    assert len(events(app, type_="session.reuse_detected")) == 1


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 60_000])
def test_a_text_that_is_no_refresh_token_is_401(client: JsonClient, token: str) -> None:
    """The challenge did not mention the token, because it was in the body and not in a header."""
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": token})

    assert (answer.status_code, answer.get_json()["code"]) == (401, "token_invalid")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')


def test_an_older_generation_ends_the_session_at_once(robin: MadeUser, log_in: LogIn) -> None:
    client = log_in(robin)
    _, second = refresh(client, client.refresh_token)
    refresh(client, second["refresh_token"])

    assert refresh(client, client.refresh_token)[1]["code"] == "refresh_token_reused"


def test_access_and_refresh_tokens_are_not_interchangeable(robin: MadeUser, log_in: LogIn) -> None:
    client = log_in(robin)

    as_access = client.as_user(client.refresh_token).get("/api/v1/auth/me")

    assert refresh(client, client.access_token)[1]["code"] == "token_invalid"
    assert as_access.get_json()["code"] == "token_invalid"


def test_a_session_ends_when_it_is_not_used(
    robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    """Seven days without a refresh end a session whose absolute end is later."""
    client = log_in(robin, remember_me=True)
    clock.advance(days=7, seconds=1)

    status, problem = refresh(client, client.refresh_token)

    assert (status, problem["code"]) == (401, "token_revoked")


def test_refreshing_does_not_move_the_absolute_end(
    robin: MadeUser, log_in: LogIn, clock: ManualClock
) -> None:
    client = log_in(robin, remember_me=True)
    (begun,) = client.get("/api/v1/auth/sessions").get_json()["items"]
    token = client.refresh_token
    for _ in range(5):
        clock.advance(days=5)
        _, pair = refresh(client, token)
        token = pair["refresh_token"]

    refreshed = client.as_user(pair["access_token"])
    (session,) = refreshed.get("/api/v1/auth/sessions").get_json()["items"]
    assert session["expires_at"] == begun["expires_at"]
    assert int(pair["refresh_expires_in"]) <= timedelta(days=5).total_seconds()
    clock.advance(days=5, seconds=1)
    assert refresh(client, token)[1]["code"] == "token_expired"


def test_log_out_ends_this_session_and_may_be_repeated(
    app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    client, other = log_in(robin), log_in(robin)

    first = client.post("/api/v1/auth/logout")
    again = client.post("/api/v1/auth/logout")

    assert (first.status_code, again.status_code) == (204, 204)
    assert first.data == b""
    assert client.get("/api/v1/auth/me").get_json()["code"] == "token_revoked"
    assert refresh(client, client.refresh_token)[1]["code"] == "token_revoked"
    assert other.get("/api/v1/auth/me").status_code == 200
    assert len(audit_rows(app, action="auth.logout")) == 1


def test_log_out_everywhere_ends_every_session(robin: MadeUser, log_in: LogIn) -> None:
    client, other = log_in(robin), log_in(robin)

    answer = client.post("/api/v1/auth/logout", json={"all_sessions": True})

    assert answer.status_code == 204
    assert other.get("/api/v1/auth/me").status_code == 401


def test_log_out_needs_a_token(client: JsonClient) -> None:
    assert client.post("/api/v1/auth/logout").status_code == 401


def test_sessions_are_listed_with_readable_devices(
    client: JsonClient, robin: MadeUser, clock: ManualClock
) -> None:
    firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
    tokens = []
    for agent in (firefox, "curl/8.5.0"):
        clock.advance(seconds=1)
        answer = client.post(
            "/api/v1/auth/login",
            json={"username": "robin", "password": PASSWORD},
            headers={"User-Agent": agent},
        )
        tokens.append(answer.get_json()["access_token"])

    listed = client.as_user(tokens[0]).get("/api/v1/auth/sessions").get_json()["items"]

    assert [(item["device"], item["current"]) for item in listed] == [
        ("curl", False),
        ("Firefox on Windows", True),
    ]
    assert listed[0]["ip_address"] == "127.0.0.1"
    assert listed[0].keys() == {
        "acr",
        "amr",
        "authenticated_at",
        "id",
        "created_at",
        "last_used_at",
        "expires_at",
        "ip_address",
        "user_agent",
        "device",
        "current",
    }


def test_one_session_can_be_ended(app: Flask, robin: MadeUser, log_in: LogIn) -> None:
    client, other = log_in(robin), log_in(robin)

    answer = client.delete(f"/api/v1/auth/sessions/{other.session_id}")

    assert answer.status_code == 204
    assert other.get("/api/v1/auth/me").status_code == 401
    assert client.get("/api/v1/auth/me").status_code == 200
    assert [event.data["session_id"] for event in events(app, type_="session.revoked")] == [
        other.session_id
    ]


def test_another_users_session_is_not_found(
    robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    client, stranger = log_in(robin), log_in(make_user("mallory"))

    unknown = "01900000-0000-7000-8000-000000000000"
    for session_id in (client.session_id, unknown, "nonsense"):
        answer = stranger.delete(f"/api/v1/auth/sessions/{session_id}")
        assert answer.status_code == 404
    assert client.get("/api/v1/auth/me").status_code == 200


def test_all_other_sessions_can_be_ended(robin: MadeUser, log_in: LogIn) -> None:
    client, others = log_in(robin), [log_in(robin) for _ in range(3)]

    answer = client.delete("/api/v1/auth/sessions")

    assert answer.get_json() == {"revoked": 3}
    assert client.get("/api/v1/auth/me").status_code == 200
    assert {c.get("/api/v1/auth/me").status_code for c in others} == {401}


def change_password(client: SignedInClient, current: str, new: str) -> tuple[int, dict[str, str]]:
    answer = client.post(
        "/api/v1/auth/change-password", json={"current_password": current, "new_password": new}
    )
    return answer.status_code, answer.get_json()


def test_a_changed_password_renews_this_session_and_ends_the_others(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    own, other = log_in(robin), log_in(robin)

    status, pair = change_password(own, PASSWORD, NEW_PASSWORD)

    assert status == 200
    assert pair["session_id"] == own.session_id
    assert own.get("/api/v1/auth/me").get_json()["code"] == "token_revoked"
    assert refresh(own, own.refresh_token)[1]["code"] == "token_revoked"
    assert other.get("/api/v1/auth/me").status_code == 401
    assert client.as_user(pair["access_token"]).get("/api/v1/auth/me").status_code == 200
    assert refresh(client, pair["refresh_token"])[0] == 200
    old = client.post("/api/v1/auth/login", json={"username": "robin", "password": PASSWORD})
    assert old.status_code == 401
    assert len(audit_rows(app, action="auth.password_changed")) == 1
    assert len(events(app, type_="user.password_changed")) == 1


def test_a_wrong_current_password_counts_as_a_failed_log_in(
    client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    own = log_in(robin)

    answers = [change_password(own, "wrong-password-1", NEW_PASSWORD) for _ in range(6)]

    assert [status for status, _ in answers] == [401] * 5 + [429]
    assert answers[0][1]["code"] == "invalid_credentials"
    login = client.post("/api/v1/auth/login", json={"username": "robin", "password": PASSWORD})
    assert login.status_code == 429


@pytest.mark.parametrize(
    ("new", "code"), [(PASSWORD, "password_unchanged"), ("password1", "password_common")]
)
def test_a_weak_or_unchanged_password_is_refused(
    robin: MadeUser, log_in: LogIn, new: str, code: str
) -> None:
    own = log_in(robin)

    status, problem = change_password(own, PASSWORD, new)

    assert status == 422
    errors: list[dict[str, str]] = problem["errors"]  # type: ignore[assignment]
    assert ("new_password", code) in [(e["field"], e["code"]) for e in errors]
    assert own.get("/api/v1/auth/me").status_code == 200


def test_a_weak_unchanged_password_has_both_errors(
    services: Services, app: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    own = log_in(robin)
    with app.app_context():
        services.account_editing.update(
            UUID(robin.id), {"username": "heron"}, actor=system_actor("tests")
        )

    _, problem = change_password(own, PASSWORD, PASSWORD)

    errors: list[dict[str, str]] = problem["errors"]  # type: ignore[assignment]
    assert [e["code"] for e in errors] == ["password_contains_username", "password_unchanged"]


def test_the_strength_of_a_password_can_be_requested(app: Flask, client: JsonClient) -> None:
    weak = client.post(
        "/api/v1/auth/password-strength", json={"password": "robin123", "username": "robin"}
    ).get_json()
    strong = client.post(
        "/api/v1/auth/password-strength", json={"password": NEW_PASSWORD}
    ).get_json()

    assert weak["acceptable"] is False
    assert "password_contains_username" in {issue["code"] for issue in weak["issues"]}
    assert strong == {"acceptable": True, "score": 4, "issues": [], "suggestions": []}
    assert audit_rows(app) == []


@pytest.mark.parametrize(
    ("whose", "session_version", "code"),
    [("mallory", 1, "token_invalid"), ("robin", 2, "token_revoked"), ("robin", 0, "token_revoked")],
)
def test_a_genuine_token_that_does_not_fit_its_session_is_refused(
    app: Flask,
    services: Services,
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
    whose: str,
    session_version: int,
    code: str,
) -> None:
    """Only a holder of the key can create one."""
    client, users = log_in(robin), {"robin": robin, "mallory": make_user("mallory")}
    client.get("/api/v1/auth/me")
    with app.app_context():
        token = services.access_tokens.issue(
            AccessGrant(
                user_id=UUID(users[whose].id),
                session_id=UUID(client.session_id),
                session_version=session_version,
                roles=(),
                permissions=(),
                authentication=authenticated_by(PWD, at=services.clock.now()),
            )
        ).token

    answers = [client.as_user(token).get("/api/v1/auth/me") for _ in range(2)]

    assert [answer.get_json()["code"] for answer in answers] == [code, code]
    assert client.get("/api/v1/auth/me").status_code == 200
