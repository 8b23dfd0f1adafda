"""How a session was authenticated: in tokens, in responses, and after everything that renews it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from flask import Flask
from sqlalchemy import select

from tests.support.authentication import set_authentication, set_mfa_enabled
from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import events
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.infrastructure.database import reading, table_of
from userapi.sessions.models import UserSession
from userapi.wiring.services import Services

NEW_PASSWORD = "granite-otter-57-teapot"
_sessions = table_of(UserSession)


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin", roles=["superadmin"])


@pytest.fixture
def session(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token about the authentication; `amr` has no order."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return {
        "acr": claims["acr"],
        "amr": set(claims["amr"]),
        "auth_time": claims["auth_time"],
    }


def stored(app: Flask, session_id: str) -> Any:
    with app.app_context(), reading() as connection:
        return connection.execute(select(_sessions).where(_sessions.c.id == UUID(session_id))).one()


def refreshed(client: SignedInClient) -> SignedInClient:
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})
    assert answer.status_code == 200, answer.text
    return SignedInClient(client.app, answer.get_json())


def shown_by(client: JsonClient) -> list[dict[str, Any]]:
    """Return what each endpoint says about the authentication of this session."""
    me = client.get("/api/v1/auth/me").get_json()
    verified = client.get("/api/v1/auth/verify").get_json()
    [listed] = client.get("/api/v1/auth/sessions").get_json()["items"]
    return [
        {name: answer[name] for name in ("acr", "amr", "authenticated_at")}
        for answer in (me, verified, listed)
    ]


def test_a_log_in_by_password_is_of_the_first_level(
    app: Flask, clock: ManualClock, robin: MadeUser, log_in: LogIn
) -> None:
    before = clock.now()

    session = log_in(robin)

    row = stored(app, session.session_id)
    assert (row.acr, row.amr) == ("aal1", "pwd")
    assert before <= row.authenticated_at <= clock.now()
    assert row.authenticated_at == row.created_at
    assert claims_of(session.access_token) == {
        "acr": "aal1",
        "amr": {"pwd"},
        "auth_time": int(row.authenticated_at.timestamp()),
    }
    [created] = events(app, type_="session.created")
    assert (created.data["acr"], created.data["amr"]) == ("aal1", ["pwd"])


def test_endpoints_tell_how_the_session_was_authenticated(
    app: Flask, session: SignedInClient
) -> None:
    at = stored(app, session.session_id).authenticated_at

    shown = shown_by(session)

    assert [datetime.fromisoformat(each["authenticated_at"]) for each in shown] == [at] * 3
    assert [(each["acr"], each["amr"]) for each in shown] == [("aal1", ["pwd"])] * 3


def test_introspection_returns_it_for_access_tokens(session: SignedInClient) -> None:
    def introspected(token: str) -> dict[str, Any]:
        answer = session.post("/api/v1/auth/introspect", json={"token": token})
        found: dict[str, Any] = answer.get_json()
        return found

    access, refresh = introspected(session.access_token), introspected(session.refresh_token)

    assert {
        "acr": access["acr"],
        "amr": set(access["amr"]),
        "auth_time": access["auth_time"],
    } == claims_of(session.access_token)
    assert refresh["active"] is True
    assert {"acr", "amr", "auth_time"} & refresh.keys() == set()


def test_administrators_see_it_in_the_sessions_of_users(
    session: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    wren = make_user("wren")
    log_in(wren)

    [listed] = session.get(f"/api/v1/users/{wren.id}/sessions").get_json()["items"]

    assert (listed["acr"], listed["amr"]) == ("aal1", ["pwd"])
    assert listed["authenticated_at"] == listed["created_at"]


def test_it_is_part_of_the_personal_export(session: SignedInClient) -> None:
    [exported] = session.get("/api/v1/users/me/export").get_json()["sessions"]

    assert (exported["acr"], exported["amr"]) == ("aal1", ["pwd"])
    assert exported["authenticated_at"] == exported["created_at"]


def test_refreshes_and_a_new_password_change_none_of_the_claims(
    app: Flask,
    clock: ManualClock,
    deployment: Deployment,
    robin: MadeUser,
    session: SignedInClient,
) -> None:
    """In other implementations the first refresh reset the level to the lowest."""
    at = clock.now() - timedelta(hours=1)
    set_authentication(
        app, robin.id, session.session_id, acr="aal2", amr="pwd otp mfa", authenticated_at=at
    )
    proved = {"acr": "aal2", "amr": {"pwd", "otp", "mfa"}, "auth_time": int(at.timestamp())}
    seen = []

    for _ in range(3):
        clock.advance(seconds=60)
        former, session = session, refreshed(session)
        seen.append(claims_of(session.access_token))
    seen.append(claims_of(refreshed(former).access_token))  # Repeated within the grace period.
    deployment.empty_cache()
    seen.append(claims_of(refreshed(session).access_token))
    session = refreshed(session)
    changed = session.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    ).get_json()
    seen.append(claims_of(changed["access_token"]))
    deployment.empty_cache()
    shown = shown_by(JsonClient(app, token=changed["access_token"]))

    assert seen == [proved] * 6
    assert [each["acr"] for each in shown] == ["aal2"] * 3
    assert [set(each["amr"]) for each in shown] == [{"pwd", "otp", "mfa"}] * 3
    assert {datetime.fromisoformat(each["authenticated_at"]) for each in shown} == {at}


def test_sessions_of_an_earlier_release_were_authenticated_when_they_were_created(
    app: Flask, clock: ManualClock, robin: MadeUser, session: SignedInClient
) -> None:
    set_authentication(app, robin.id, session.session_id, authenticated_at=None)
    created_at = stored(app, session.session_id).created_at
    clock.advance(seconds=90)

    shown = shown_by(session)
    claims = claims_of(refreshed(session).access_token)

    assert {datetime.fromisoformat(each["authenticated_at"]) for each in shown} == {created_at}
    assert claims == {
        "acr": "aal1",
        "amr": {"pwd"},
        "auth_time": int(created_at.timestamp()),
    }


def test_a_token_of_an_earlier_release_is_judged_by_its_session(
    app: Flask, services: Services, robin: MadeUser, session: SignedInClient
) -> None:
    """It has no claims about the authentication."""
    claims = jwt.decode(session.access_token, options={"verify_signature": False})
    for name in ("acr", "amr", "auth_time"):
        del claims[name]
    with app.app_context():
        key = services.keys.active()
    assert key.private is not None
    former = jwt.encode(
        claims,
        key.private,
        algorithm=services.keys.algorithm,
        headers={"typ": "at+jwt", "kid": key.kid},
    )

    shown = shown_by(session.as_user(former))
    answer = session.post("/api/v1/auth/introspect", json={"token": former}).get_json()

    assert [each["acr"] for each in shown] == ["aal1"] * 3
    assert (answer["active"], answer["acr"], answer["amr"]) == (True, "aal1", ["pwd"])


def test_what_a_token_claims_does_not_count(
    app: Flask, clock: ManualClock, robin: MadeUser, session: SignedInClient
) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    set_authentication(
        app, robin.id, session.session_id, acr="aal2", amr="pop user mfa", authenticated_at=at
    )

    shown = shown_by(session)  # The token still says aal1.

    assert [each["acr"] for each in shown] == ["aal2"] * 3
    assert {datetime.fromisoformat(each["authenticated_at"]) for each in shown} == {at}


def test_whether_a_user_has_a_factor_is_shown_filtered_and_exported(
    app: Flask, session: SignedInClient, make_user: MakeUser
) -> None:
    wren = make_user("wren")
    set_mfa_enabled(app, wren.id)

    def names(query: str) -> list[str]:
        page = session.get(f"/api/v1/users/?sort=username&{query}").get_json()
        assert page["total"] == len(page["items"])
        return [user["username"] for user in page["items"]]

    exported = session.get("/api/v1/users/export?format=csv&mfa_enabled=true").text

    assert session.get(f"/api/v1/users/{wren.id}").get_json()["mfa_enabled"] is True
    assert session.get("/api/v1/users/me").get_json()["mfa_enabled"] is False
    assert names("mfa_enabled=true") == ["wren"]
    assert names("mfa_enabled=false") == ["robin"]
    assert names("mfa_enabled=true&status=active&search=wre") == ["wren"]
    assert names("mfa_enabled=true&locked=true") == []
    header, *rows = exported.splitlines()
    assert "mfa_enabled" in header.split(",")
    assert len(rows) == 1 and "wren" in rows[0]


@pytest.mark.parametrize("body", [{"mfa_enabled": True}, {"mfa_enabled": False}])
def test_no_request_sets_it(
    session: SignedInClient, robin: MadeUser, body: dict[str, bool]
) -> None:
    answers = [
        session.patch("/api/v1/users/me", json=body),
        session.patch(f"/api/v1/users/{robin.id}", json=body),
        session.post("/api/v1/users/", json={"username": "x1", "email": "x@example.com", **body}),
    ]

    for answer in answers:
        assert answer.status_code == 422
        [error] = [e for e in answer.get_json()["errors"] if e["field"] == "mfa_enabled"]
        assert error["code"] == "unknown_field"
