"""Step-up: who must authenticate again, how, and what becomes of the former tokens (RFC 9470)."""

from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import jwt
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.support.authentication import set_authentication, set_mfa_enabled
from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import audit_rows, events
from tests.support.machines import OWN_KEYS, make_key, make_service
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

MakeApp = Callable[..., Flask]
NEW_PASSWORD = "granite-otter-57-teapot"
MAX_AGE = 900


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def session(robin: MadeUser, log_in: LogIn) -> SignedInClient:
    return log_in(robin)


def step_up(client: JsonClient, password: str = PASSWORD) -> TestResponse:
    return client.post("/api/v1/auth/step-up", json={"password": password})


def refresh(client: SignedInClient) -> TestResponse:
    return client.post("/api/v1/auth/refresh", json={"refresh_token": client.refresh_token})


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def code_of(answer: TestResponse) -> Any:
    return answer.get_json()["code"]


# The step-up


def test_a_step_up_gives_a_new_pair_of_the_same_session(
    app: Flask, clock: ManualClock, session: SignedInClient
) -> None:
    clock.advance(minutes=20)
    before = clock.now()

    answer = step_up(session)

    assert answer.status_code == 200
    renewed = SignedInClient(app, answer.get_json())
    claims, former = claims_of(renewed.access_token), claims_of(session.access_token)
    assert answer.get_json().keys() == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "refresh_expires_in",
        "session_id",
    }
    assert renewed.session_id == session.session_id
    assert int(before.timestamp()) <= claims["auth_time"] <= int(clock.now().timestamp())
    assert (claims["acr"], claims["amr"]) == ("aal1", ["pwd"])
    assert claims["roles"] == former["roles"]
    assert claims_of(renewed.refresh_token)["exp"] == claims_of(session.refresh_token)["exp"]
    assert renewed.get("/api/v1/auth/me").status_code == 200
    assert refresh(renewed).status_code == 200
    [row] = audit_rows(app, action="auth.step_up")
    assert (row.outcome, row.target_type, row.target_id) == (
        "success",
        "session",
        session.session_id,
    )
    assert row.details == {"acr": "aal1", "amr": ["pwd"], "factor": "password"}


def test_the_former_pair_is_revoked_and_its_reuse_ends_nothing(
    app: Flask, deployment: Deployment, session: SignedInClient
) -> None:
    """Elsewhere the grace of a refresh made an old token one of the new level."""
    session.get("/api/v1/auth/me")
    renewed = SignedInClient(app, step_up(session).get_json())

    refused = [session.get("/api/v1/auth/me"), refresh(session)]
    deployment.empty_cache()
    refused += [session.get("/api/v1/auth/me"), refresh(session), step_up(session)]

    assert [code_of(answer) for answer in refused] == ["token_revoked"] * 5
    assert {answer.status_code for answer in refused} == {401}
    assert renewed.get("/api/v1/auth/me").status_code == 200
    assert events(app, type_="session.reuse_detected") == []
    assert events(app, type_="session.revoked") == []


def test_every_earlier_pair_is_revoked(app: Flask, session: SignedInClient) -> None:
    beside = SignedInClient(app, refresh(session).get_json())

    renewed = SignedInClient(app, step_up(session).get_json())

    for former in (session, beside):
        assert code_of(former.get("/api/v1/auth/me")) == "token_revoked"
        assert code_of(refresh(former)) == "token_revoked"
    assert renewed.get("/api/v1/auth/me").status_code == 200


def test_the_level_of_the_session_stays_and_methods_are_added(
    app: Flask, clock: ManualClock, robin: MadeUser, session: SignedInClient
) -> None:
    """A session in which a factor took part keeps its level when the factor is gone."""
    set_authentication(
        app,
        robin.id,
        session.session_id,
        acr="aal2",
        amr="pop user mfa",
        authenticated_at=clock.now(),
    )

    claims = claims_of(step_up(session).get_json()["access_token"])

    assert claims["acr"] == "aal2"
    assert set(claims["amr"]) == {"pop", "user", "mfa", "pwd"}


def test_a_wrong_password_counts_for_the_user_name(
    app: Flask, robin: MadeUser, session: SignedInClient, client: JsonClient
) -> None:
    answers = [step_up(session, "wrong-password-1") for _ in range(6)]

    assert [code_of(answer) for answer in answers[:5]] == ["invalid_credentials"] * 5
    # The token is valid: "invalid_token" would make clients discard it.
    assert {answer.headers["WWW-Authenticate"] for answer in answers[:5]} == {"Bearer"}
    assert (answers[5].status_code, code_of(answers[5])) == (429, "too_many_attempts")
    assert int(answers[5].headers["Retry-After"]) > 0
    assert code_of(step_up(session)) == "too_many_attempts"
    log_in = client.post(
        "/api/v1/auth/login", json={"username": robin.username, "password": PASSWORD}
    )
    assert code_of(log_in) == "too_many_attempts"
    # The token stays valid, and the response contains nothing else.
    assert session.get("/api/v1/auth/me").status_code == 200
    assert audit_rows(app, action="auth.step_up") == []


def test_the_right_password_clears_the_failures(session: SignedInClient) -> None:
    for _ in range(4):
        step_up(session, "wrong-password-1")
    renewed = SignedInClient(session.app, step_up(session).get_json())

    answers = [step_up(renewed, "wrong-password-1") for _ in range(4)]

    assert [code_of(answer) for answer in answers] == ["invalid_credentials"] * 4


def test_with_a_second_factor_the_password_is_not_looked_at(
    app: Flask, robin: MadeUser, session: SignedInClient
) -> None:
    set_mfa_enabled(app, robin.id)

    answers = [step_up(session, password) for password in (PASSWORD, "wrong-password-1") * 4]

    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(403, "mfa_required")}
    assert audit_rows(app, action="auth.step_up") == []
    set_mfa_enabled(app, robin.id, enabled=False)
    assert step_up(session).status_code == 200  # None of them was counted.


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"password": ""},
        {"password": 1},
        {"password": PASSWORD, "more": 1},
        [],
    ],
)
def test_a_malformed_step_up_is_refused(session: SignedInClient, body: object) -> None:
    assert session.post("/api/v1/auth/step-up", json=body).status_code == 422


def test_a_step_up_needs_a_live_session(
    client: JsonClient, session: SignedInClient, log_in: LogIn, robin: MadeUser
) -> None:
    other = log_in(robin)
    other.delete("/api/v1/auth/sessions")

    assert code_of(step_up(client)) == "authentication_required"
    assert code_of(step_up(session)) == "token_revoked"


def test_step_ups_are_limited_like_log_ins_each_by_itself(
    make_app: MakeApp, robin: MadeUser
) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_LOGIN="2/minute")
    log_in = JsonClient(app).post(
        "/api/v1/auth/login", json={"username": "robin", "password": PASSWORD}
    )
    session = SignedInClient(app, log_in.get_json())

    answers = [step_up(session, "wrong-password-1") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert code_of(answers[2]) == "rate_limited"


def test_of_several_step_ups_with_one_token_exactly_one_gets_a_pair(
    make_app: MakeApp, robin: MadeUser
) -> None:
    """Lock-out has room for all of them, so that only the session decides."""
    app = make_app(LOCKOUT_THRESHOLD="100")
    pair = JsonClient(app).post(
        "/api/v1/auth/login", json={"username": "robin", "password": PASSWORD}
    )
    session = SignedInClient(app, pair.get_json())
    barrier = Barrier(20)

    def run(_number: int) -> TestResponse:
        barrier.wait(60)
        return step_up(session)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(run, range(20)))

    winners = [answer for answer in answers if answer.status_code == 200]
    assert len(winners) == 1
    assert {
        (answer.status_code, code_of(answer)) for answer in answers if answer not in winners
    } == {(401, "token_revoked")}
    renewed = SignedInClient(app, winners[0].get_json())
    assert renewed.get("/api/v1/auth/me").status_code == 200
    assert len(audit_rows(app, action="auth.step_up")) == 1


# Who needs one


@pytest.fixture
def boss(make_user: MakeUser) -> MadeUser:
    return make_user("boss", roles=["superadmin"])


@pytest.fixture
def guarded(make_app: MakeApp, boss: MadeUser) -> Callable[..., SignedInClient]:
    """Return a function that logs the boss in where these permissions need a step-up."""

    def log_in(*permissions: str, **settings: str) -> SignedInClient:
        app = make_app(STEP_UP_PERMISSIONS=",".join(permissions), **settings)
        answer = JsonClient(app).post(
            "/api/v1/auth/login", json={"username": "boss", "password": PASSWORD}
        )
        return SignedInClient(app, answer.get_json())

    return log_in


def assert_challenged(answer: TestResponse, *, acr_values: str | None = None) -> None:
    """Check the challenge of RFC 9470 §3, in the header and in the body."""
    body = answer.get_json()
    assert (answer.status_code, body["code"]) == (401, "insufficient_user_authentication")
    assert body["max_age"] == MAX_AGE
    assert body.get("acr_values") == acr_values
    expected = (
        'Bearer error="insufficient_user_authentication", '
        f'error_description="{body["title"]}", max_age="{MAX_AGE}"'
    )
    if acr_values:
        expected += f', acr_values="{acr_values}"'
    assert answer.headers["WWW-Authenticate"] == expected


def test_permissions_may_need_a_fresh_session(
    clock: ManualClock, guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    session = guarded("users:suspend")
    path = f"/api/v1/users/{robin.id}/suspend"
    clock.advance(seconds=MAX_AGE + 1)

    refused = session.post(path)
    elsewhere = session.get("/api/v1/users/")
    renewed = SignedInClient(session.app, step_up(session).get_json())
    clock.advance(seconds=MAX_AGE - 5)
    accepted = renewed.post(path)

    assert_challenged(refused)
    assert elsewhere.status_code == 200
    assert accepted.status_code == 200


@pytest.mark.thorough
@pytest.mark.parametrize("credential", ["personal_key", "service_key", "client_token"])
def test_keys_cannot_use_permissions_that_need_a_step_up(
    guarded: Callable[..., SignedInClient], robin: MadeUser, credential: str
) -> None:
    """A leaked key would otherwise do what a stolen session cannot."""
    session = guarded("users:suspend")
    service = make_service(session, roles=["admin"])
    issued = JsonClient(session.app).post(
        "/api/v1/auth/token",
        json={
            "grant_type": "client_credentials",
            "client_id": service.id,
            "client_secret": service.key.text,
        },
    )
    tokens = {
        "personal_key": make_key(session, OWN_KEYS).text,
        "service_key": service.key.text,
        "client_token": issued.get_json()["access_token"],
    }
    client = JsonClient(session.app, token=tokens[credential])

    refused = client.post(f"/api/v1/users/{robin.id}/suspend")

    code = "interactive_session_required" if credential == "personal_key" else "user_required"
    assert (refused.status_code, code_of(refused)) == (403, code)
    assert client.get("/api/v1/users/").status_code == 200


def test_a_key_without_a_permission_that_needs_a_step_up_lacks_the_permission(
    guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    session = guarded("users:suspend")
    key = make_key(session, OWN_KEYS, permissions=["users:read"])

    refused = JsonClient(session.app, token=key.text).post(f"/api/v1/users/{robin.id}/suspend")

    assert (refused.status_code, code_of(refused)) == (403, "permission_denied")


def test_a_client_cannot_introspect_by_basic_where_that_needs_a_step_up(
    guarded: Callable[..., SignedInClient],
) -> None:
    session = guarded("tokens:introspect")
    service = make_service(session, roles=["superadmin"])
    basic = b64encode(f"{service.id}:{service.key.text}".encode()).decode()

    refused = JsonClient(session.app).post(
        "/api/v1/auth/introspect",
        json={"token": session.token},
        headers={"Authorization": f"Basic {basic}"},
    )

    assert (refused.status_code, code_of(refused)) == (403, "user_required")


def test_the_age_is_a_setting(
    clock: ManualClock, guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    session = guarded("users:suspend", STEP_UP_MAX_AGE_SECONDS="5")
    clock.advance(seconds=6)

    answer = session.post(f"/api/v1/users/{robin.id}/suspend")

    assert answer.get_json()["max_age"] == 5
    assert 'max_age="5"' in answer.headers["WWW-Authenticate"]


def test_a_refresh_does_not_make_a_session_fresh(
    clock: ManualClock, guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    session = guarded("users:suspend")
    clock.advance(seconds=MAX_AGE + 1)
    refreshed = SignedInClient(session.app, refresh(session).get_json())

    assert_challenged(refreshed.post(f"/api/v1/users/{robin.id}/suspend"))


def test_with_a_second_factor_the_first_level_is_too_low(
    guarded: Callable[..., SignedInClient], boss: MadeUser, robin: MadeUser
) -> None:
    session = guarded("users:*")
    set_mfa_enabled(session.app, boss.id)

    assert_challenged(session.post(f"/api/v1/users/{robin.id}/suspend"), acr_values="aal2")


def test_a_session_of_the_second_level_may_only_be_too_old(
    clock: ManualClock, guarded: Callable[..., SignedInClient], boss: MadeUser, robin: MadeUser
) -> None:
    session = guarded("*")
    set_mfa_enabled(session.app, boss.id)
    set_authentication(
        session.app,
        boss.id,
        session.session_id,
        acr="aal2",
        amr="pwd otp mfa",
        authenticated_at=clock.now(),
    )
    fresh = session.post(f"/api/v1/users/{robin.id}/suspend")
    clock.advance(seconds=MAX_AGE + 1)

    assert fresh.status_code == 200
    assert_challenged(session.post(f"/api/v1/users/{robin.id}/activate"))


def test_a_lack_of_permission_comes_before_freshness_and_freshness_before_all_else(
    clock: ManualClock, guarded: Callable[..., SignedInClient], make_user: MakeUser
) -> None:
    session = guarded("users:delete", "users:create")
    nobody = "01900000-0000-7000-8000-000000000000"
    make_user("mod", roles=["moderator"])
    answer = JsonClient(session.app).post(
        "/api/v1/auth/login", json={"username": "mod", "password": PASSWORD}
    )
    moderator = SignedInClient(session.app, answer.get_json())
    clock.advance(seconds=MAX_AGE + 1)

    refused = moderator.delete(f"/api/v1/users/{nobody}")

    assert (refused.status_code, code_of(refused)) == (403, "permission_denied")
    assert_challenged(session.delete(f"/api/v1/users/{nobody}"))
    assert_challenged(session.post("/api/v1/users/", json={"nonsense": 1}))
    assert_challenged(session.post("/api/v1/users/", data=b"{", content_type="application/json"))
    assert code_of(session.as_user("x.y.z").delete(f"/api/v1/users/{nobody}")) == "token_invalid"


def test_a_permission_is_guarded_wherever_it_lets_in(
    clock: ManualClock, guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    """Roles can be assigned by five requests, four of which need other permissions as well."""
    session = guarded("roles:assign")
    clock.advance(seconds=MAX_AGE + 1)
    new = {"username": "wren", "email": "wren@example.com", "password": PASSWORD}
    row = b'{"username":"lark","email":"lark@example.com","roles":["moderator"]}\n'
    ndjson = {"data": row, "content_type": "application/x-ndjson"}
    user = f"/api/v1/users/{robin.id}"

    refused = [
        session.put(f"{user}/roles", json={"roles": ["moderator"]}),
        session.patch(user, json={"roles": ["moderator"]}),
        session.post("/api/v1/users/", json={**new, "roles": ["moderator"]}),
        session.post(
            "/api/v1/users/bulk",
            json={"action": "assign_role", "user_ids": [robin.id], "role": "moderator"},
        ),
        session.post("/api/v1/users/import", **ndjson),
        session.post("/api/v1/users/import", headers={"Prefer": "respond-async"}, **ndjson),
    ]
    accepted = [
        session.patch(user, json={"first_name": "Robin"}),
        session.post("/api/v1/users/", json=new),
        session.post("/api/v1/users/bulk", json={"action": "unlock", "user_ids": [robin.id]}),
        session.post(
            "/api/v1/users/import",
            data=row.replace(b',"roles":["moderator"]', b""),
            content_type="application/x-ndjson",
        ),
    ]

    for answer in refused:
        assert_challenged(answer)
    assert [answer.status_code for answer in accepted] == [200, 201, 200, 200]
    assert session.get(user).get_json()["roles"] == ["user"]
    assert session.get("/api/v1/users/?search=lark").get_json()["items"][0]["roles"] == ["user"]


@pytest.mark.parametrize(
    ("permission", "field"),
    [("users:update", "first_name"), ("users:suspend", "status"), ("roles:assign", "roles")],
)
def test_a_change_of_a_user_needs_the_step_up_before_its_values_are_read(
    clock: ManualClock,
    guarded: Callable[..., SignedInClient],
    robin: MadeUser,
    permission: str,
    field: str,
) -> None:
    session = guarded(permission)
    user = f"/api/v1/users/{robin.id}"
    clock.advance(seconds=MAX_AGE + 1)

    challenged = [
        session.patch(user, json={field: 5}),
        session.put(user, json={field: 5}),
        session.patch(user, json={"username": 5, "status": 5, "roles": 5}),
    ]
    others = {"first_name", "status", "roles"} - {field}

    for answer in challenged:
        assert_challenged(answer)
    assert session.patch(user, json=dict.fromkeys(others, 5)).status_code == 422
    assert session.patch(user, data=b"{", content_type="application/json").status_code == 400


@pytest.mark.thorough
def test_a_bulk_action_needs_the_step_up_of_its_own_permission(
    clock: ManualClock, guarded: Callable[..., SignedInClient], robin: MadeUser
) -> None:
    session = guarded("users:delete")
    clock.advance(seconds=MAX_AGE + 1)

    def run(action: str) -> TestResponse:
        return session.post("/api/v1/users/bulk", json={"action": action, "user_ids": [robin.id]})

    assert run("suspend").status_code == 200
    assert_challenged(run("delete"))


def test_what_users_do_to_themselves_needs_no_permission_and_no_step_up(
    clock: ManualClock, guarded: Callable[..., SignedInClient], boss: MadeUser
) -> None:
    session = guarded("users:*")
    clock.advance(seconds=MAX_AGE + 1)

    assert session.get(f"/api/v1/users/{boss.id}").status_code == 200
    changed = session.patch(f"/api/v1/users/{boss.id}", json={"first_name": "Bo"})
    assert changed.status_code == 200


SENSITIVE: list[tuple[str, str, dict[str, str], int]] = [
    (
        "POST",
        "/api/v1/auth/change-email",
        {"new_email": "new@example.com", "current_password": PASSWORD},
        202,
    ),
    (
        "POST",
        "/api/v1/auth/change-password",
        {"new_password": NEW_PASSWORD, "current_password": PASSWORD},
        200,
    ),
    ("DELETE", "/api/v1/users/me", {"current_password": PASSWORD}, 204),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), SENSITIVE)
def test_sensitive_changes_need_a_fresh_session_of_users_with_a_factor(
    app: Flask,
    clock: ManualClock,
    robin: MadeUser,
    session: SignedInClient,
    method: str,
    path: str,
    body: dict[str, str],
    status: int,
) -> None:
    set_mfa_enabled(app, robin.id)
    too_weak = session.request(method, path, json=body)
    set_authentication(
        app,
        robin.id,
        session.session_id,
        acr="aal2",
        amr="pwd otp mfa",
        authenticated_at=clock.now(),
    )
    clock.advance(seconds=MAX_AGE + 1)
    too_old = session.request(method, path, json={"nonsense": 1})
    set_authentication(app, robin.id, session.session_id, authenticated_at=clock.now())
    fresh = session.request(method, path, json=body)

    assert_challenged(too_weak, acr_values="aal2")
    assert_challenged(too_old)
    assert fresh.status_code == status


@pytest.mark.parametrize(("method", "path", "body", "status"), SENSITIVE)
def test_without_a_factor_they_need_the_password_alone(
    clock: ManualClock,
    session: SignedInClient,
    method: str,
    path: str,
    body: dict[str, str],
    status: int,
) -> None:
    clock.advance(seconds=MAX_AGE + 1)

    assert session.request(method, path, json=body).status_code == status


def test_the_document_names_the_refusals_of_each_operation(client: JsonClient) -> None:
    paths = client.get("/openapi.json").get_json()["paths"]

    def codes(method: str, path: str, status: int) -> set[str]:
        answer = paths[f"/api/v1{path}"][method]["responses"].get(str(status), {})
        content = answer.get("content", {}).get("application/problem+json", {})
        return set(content.get("examples", {}))

    def may_be_stale(method: str, path: str) -> bool:
        return "insufficient_user_authentication" in codes(method, path, 401)

    def must_enroll(method: str, path: str) -> bool:
        return "mfa_enrollment_required" in codes(method, path, 403)

    assert may_be_stale("post", "/auth/change-password")
    assert may_be_stale("post", "/auth/change-email")
    assert may_be_stale("delete", "/users/me")
    assert may_be_stale("delete", "/users/{user_id}")  # By STEP_UP_PERMISSIONS.
    assert not may_be_stale("get", "/users/me")
    assert not may_be_stale("post", "/auth/step-up")
    assert must_enroll("get", "/users/me") and must_enroll("post", "/auth/change-password")
    for method, path in (("get", "/auth/me"), ("get", "/auth/verify"), ("post", "/auth/step-up")):
        assert not must_enroll(method, path)
    assert "password_change_required" not in codes("post", "/auth/step-up", 403)
    assert {"mfa_required", "invalid_credentials"} <= codes("post", "/auth/step-up", 403) | codes(
        "post", "/auth/step-up", 401
    )


def test_browsers_of_other_origins_may_read_the_challenge(make_app: MakeApp) -> None:
    client = JsonClient(make_app(CORS_ORIGINS="https://app.example"))

    answer = client.get("/api/v1/auth/me", headers={"Origin": "https://app.example"})

    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert "WWW-Authenticate" in exposed


def test_step_ups_are_counted_by_outcome(app: Flask, session: SignedInClient) -> None:
    def counted() -> dict[str, float]:
        lines = JsonClient(app).get("/metrics").text.splitlines()
        return {
            line.split('"')[1]: float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("auth_step_ups_total{")
        }

    before = counted()
    step_up(session, "wrong-password-1")
    step_up(session)
    after = counted()

    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "failure": 1.0,
        "success": 1.0,
    }
