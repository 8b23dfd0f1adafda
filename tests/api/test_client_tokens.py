"""OAuth 2.0 for machines: client credentials, tokens, introspection, revocation, metadata."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from flask import Flask

from tests.api.test_long_tokens import claims_of as payload_of
from tests.support.client import JsonClient
from tests.support.deployments import Deployment, build_app, disconnect
from tests.support.facts import audit_rows
from tests.support.machines import (
    OWN_KEYS,
    MadeService,
    basic,
    code_of,
    make_key,
    make_service,
    wrong_secret,
)
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.clock import ManualClock, rfc3339
from userapi.infrastructure.database import reading, table_of
from userapi.machines.models import ClientToken
from userapi.wiring.services import Services

TOKEN = "/api/v1/auth/token"
VERIFY = "/api/v1/auth/verify"
INTROSPECT = "/api/v1/auth/introspect"
METADATA = "/.well-known/oauth-authorization-server"
FORM = "application/x-www-form-urlencoded"
GRANT = "client_credentials"
MakeApp = Callable[..., Flask]


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


@pytest.fixture
def service(boss: SignedInClient) -> MadeService:
    return make_service(boss, roles=["moderator"])


def request_token(client: JsonClient, service: MadeService, **more: str) -> Any:
    body = {
        "grant_type": "client_credentials",
        "client_id": service.id,
        "client_secret": service.key.text,
        **more,
    }
    return client.post(TOKEN, json={name: value for name, value in body.items() if value})


def token_of(client: JsonClient, service: MadeService, **more: str) -> str:
    answer = request_token(client, service, **more)
    assert answer.status_code == 200, answer.get_json()
    token: str = answer.get_json()["access_token"]
    return token


def test_a_client_gets_a_token(app: Flask, client: JsonClient, service: MadeService) -> None:
    answer = request_token(client, service)

    body = answer.get_json()
    assert answer.status_code == 200
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 1800)
    assert body["scope"].split(" ") == sorted(body["scope"].split(" "))
    claims = payload_of(body["access_token"])
    assert claims["sub"] == claims["client_id"] == service.id
    assert claims["sid"] == claims["key_id"] == service.key.id
    assert (claims["roles"], claims["scope"]) == (["moderator"], body["scope"])
    assert claims["permissions"] == body["scope"].split(" ")
    verified = client.as_user(body["access_token"]).get(VERIFY).get_json()
    assert (verified["user_id"], verified["key_id"]) == (service.id, service.key.id)
    assert (verified["actor_type"], verified["session_id"]) == ("service", None)
    (row,) = audit_rows(app, action="auth.token_issued")
    assert (row.outcome, str(row.actor_id), str(row.key_id)) == (
        "success",
        service.id,
        service.key.id,
    )
    assert body["access_token"] not in repr(row)


class HurryingClock(ManualClock):
    """A clock on which much time passes within each request."""

    def now(self) -> datetime:
        self.advance(milliseconds=370)
        return super().now()


def test_expires_in_is_the_lifetime_of_the_token(
    deployment: Deployment, service: MadeService
) -> None:
    """A second that began between the signature and the answer made it one second less."""
    app = build_app(
        {**deployment.environment, "DOCS_ENABLED": "false"},
        clock=HurryingClock(),
        instance_dir=deployment.instance_dir,
    )

    answers = [request_token(JsonClient(app), service).get_json() for _ in range(8)]
    disconnect(app)

    assert [answer["expires_in"] for answer in answers] == [1800] * 8
    for claims in (payload_of(answer["access_token"]) for answer in answers):
        assert claims["exp"] - claims["iat"] == 1800


def test_credentials_are_read_by_basic_and_from_the_body(
    client: JsonClient, service: MadeService
) -> None:
    grant = "grant_type=client_credentials"
    secret = service.key.text
    encoded = basic(service.id.replace("-", "%2D"), quote(secret, safe="").replace("_", "%5F"))

    for headers, data in (
        (basic(service.id, secret), grant),
        (encoded, grant),
        ({}, f"{grant}&client_id={service.id}&client_secret={secret}"),
        (basic(service.id, secret), f"{grant}&client_id={service.id}&client_secret=&unknown=1"),
    ):
        answer = client.post(TOKEN, headers=headers, data=data, content_type=FORM)
        assert answer.status_code == 200, (headers, answer.get_json())


def test_two_active_keys_are_a_rotation_without_a_gap(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    new = boss.post(f"{service.key.path}/rotate", json={"overlap_seconds": 60}).get_json()["key"]

    assert request_token(client, service).status_code == 200
    assert request_token(client, service, client_secret=new).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "password", "client_secret": "x"}, 400, "unsupported_grant_type"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"client_id": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"}, 401, "invalid_client"),
        ({"audience": "other"}, 400, "invalid_target"),
        ({"resource": "other"}, 400, "invalid_target"),
        ({"audience": "other", "scope": "nothing:at-all"}, 400, "invalid_target"),
        ({"scope": "users:delete"}, 400, "invalid_scope"),
        ({"scope": "users:read nothing"}, 400, "invalid_scope"),
        ({"scope": "users:read  stats:read"}, 400, "invalid_scope"),
    ],
)
def test_errors_are_those_of_oauth_and_problems(
    client: JsonClient, service: MadeService, change: dict[str, str], status: int, error: str
) -> None:
    answer = request_token(client, service, **change)

    body = answer.get_json()
    assert (answer.status_code, body["error"], body["code"]) == (status, error, error)
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert body["error_description"] and body["correlation_id"]
    assert (answer.headers.get("WWW-Authenticate") == 'Basic realm="userapi"') == (status == 401)


def test_every_other_error_of_the_path_has_the_same_form(
    make_app: MakeApp, client: JsonClient, service: MadeService
) -> None:
    limited = JsonClient(make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_TOKEN="1/minute"))
    assert request_token(limited, service).status_code == 200

    answers = [
        client.get(TOKEN),
        client.post(TOKEN, data="x" * 70_000, content_type=FORM),
        client.post(TOKEN, data="<a/>", content_type="text/xml"),
        client.post(TOKEN, data="a=1&a=2", content_type=FORM),
        client.post(TOKEN, data="[]", content_type="application/json"),
        client.post(TOKEN, data="{", content_type="application/json"),
        client.post(TOKEN),
        request_token(limited, service),
    ]

    assert [answer.status_code for answer in answers] == [405, 413, 415, 400, 400, 400, 400, 429]
    for answer in answers:
        body = answer.get_json()
        assert answer.content_type == "application/json"
        assert body["error"] == body["code"] and body["error_description"]
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_requests_are_counted_by_client_and_network(
    make_app: MakeApp, boss: SignedInClient, service: MadeService
) -> None:
    other = make_service(boss, "other")
    app = make_app(
        RATE_LIMIT_ENABLED="true", RATE_LIMIT_TOKEN="2/minute", RATE_LIMIT_DEFAULT="1/minute"
    )
    here, there = JsonClient(app), JsonClient(app, ip_address="192.0.2.9")

    statuses = [
        request_token(client, made).status_code
        for client, made in ((here, service),) * 3 + ((there, service), (here, other))
    ]

    assert statuses == [200, 200, 429, 200, 200]


def test_keys_tokens_and_basic_of_an_account_share_one_limit(
    make_app: MakeApp, boss: SignedInClient, client: JsonClient
) -> None:
    service = make_service(boss, roles=["admin"])
    token = token_of(client, service)
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_SERVICE="4/minute")
    by_key, by_token = (JsonClient(app, token=text) for text in (service.key.text, token))
    headers = basic(service.id, service.key.text)

    statuses = [
        by_key.get(VERIFY).status_code,
        by_token.get(VERIFY).status_code,
        JsonClient(app).post(INTROSPECT, json={"token": token}, headers=headers).status_code,
        by_token.get(VERIFY).status_code,
    ]

    assert statuses == [200] * 4
    assert code_of(by_key.get(VERIFY)) == code_of(by_token.get(VERIFY)) == (429, "rate_limited")


def test_counting_looks_up_the_key_of_the_client_and_no_other(
    make_app: MakeApp, boss: SignedInClient, service: MadeService
) -> None:
    other = make_service(boss, "other")
    client = JsonClient(make_app(RATE_LIMIT_ENABLED="true"))
    assert request_token(client, service).status_code == 200
    assert request_token(client, other).status_code == 200

    mixed = request_token(client, service, client_secret=other.key.text)
    unknown = request_token(client, service, client_secret=wrong_secret(service.key.text))
    assert request_token(client, service).status_code == 200
    boss.delete(service.key.path)

    assert code_of(mixed) == code_of(unknown) == (401, "invalid_client")
    assert code_of(request_token(client, service)) == (401, "invalid_client")
    assert request_token(client, other).status_code == 200


def test_query_parameters_are_never_read(client: JsonClient, service: MadeService) -> None:
    query = {"grant_type": "client_credentials", "scope": "users:delete", "client_id": "x"}

    assert request_token(client, service).status_code == 200
    answer = client.post(
        TOKEN,
        query=query,
        headers=basic(service.id, service.key.text),
        json={"grant_type": "client_credentials"},
    )
    assert answer.status_code == 200
    assert client.post(TOKEN, query=query).get_json()["error"] == "invalid_request"


def test_credentials_are_sent_once(client: JsonClient, service: MadeService) -> None:
    headers = basic(service.id, service.key.text)
    for more in ({"client_secret": service.key.text}, {"client_id": "another"}):
        answer = client.post(
            TOKEN, headers=headers, json={"grant_type": "client_credentials", **more}
        )
        assert answer.get_json()["error"] == "invalid_request"


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic YWJj", "basic /w=="])
def test_malformed_basic_credentials_are_rejected(client: JsonClient, header: str) -> None:
    answer = client.post(
        TOKEN, headers={"Authorization": header}, json={"grant_type": "client_credentials"}
    )

    assert code_of(answer) == (401, "invalid_client")


def test_only_the_holder_of_a_secret_learns_why_it_is_refused(
    boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    end = rfc3339(clock.now() + timedelta(hours=1))
    service = make_service(boss, expires_at=end)
    revoked = make_key(boss, service.keys_path)
    boss.delete(revoked.path)

    def description(secret: str) -> str:
        answer = request_token(client, service, client_secret=secret)
        assert code_of(answer) == (401, "invalid_client")
        text: str = answer.get_json()["error_description"]
        return text

    unknown = description(wrong_secret(service.key.text))
    assert "revoked" in description(revoked.text)
    assert description(wrong_secret(revoked.text)) == unknown
    clock.advance(hours=2)
    assert "expired" in description(service.key.text)
    assert description(wrong_secret(service.key.text)) == unknown


@pytest.mark.parametrize(
    "client_id", ["\0", "a\0b", "\ud800", "\x1b[2J", "media-worker", "x" * 9000]
)
@pytest.mark.parametrize("spelling", ["form", "json", "basic"])
def test_any_text_as_a_client_id_is_an_unknown_client(
    app: Flask, client: JsonClient, client_id: str, spelling: str
) -> None:
    """NUL and lone surrogates, which PostgreSQL stores in no text, were 500."""
    body = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": "x"}
    if spelling == "json":
        answer = client.post(TOKEN, json=body)
    elif spelling == "form":
        form = urlencode(body, errors="surrogatepass")
        answer = client.post(TOKEN, data=form, content_type=FORM)
    else:
        headers = basic(quote(client_id, safe="", errors="surrogatepass"), "x")
        answer = client.post(TOKEN, headers=headers, json={"grant_type": "client_credentials"})

    if spelling == "form" and client_id == "\ud800":
        assert code_of(answer) == (400, "invalid_request")  # No form in UTF-8 can contain it.
        return
    assert code_of(answer) == (401, "invalid_client")
    (row,) = audit_rows(app, action="auth.token_issued")
    assert row.details == {"error": "invalid_client", "client_id": None}


def test_a_secret_in_the_field_of_the_client_id_is_not_recorded(
    app: Flask, client: JsonClient, service: MadeService
) -> None:
    """64 of its 76 characters were: enough to guess the others."""
    assert request_token(client, service, client_id=service.key.text).status_code == 401
    assert request_token(client, service, client_secret="x").status_code == 401

    rows = audit_rows(app, action="auth.token_issued")
    assert [row.details["client_id"] for row in rows] == [None, service.id]
    assert service.key.text[:30] not in repr(rows)


def test_an_expired_key_of_a_suspended_account_is_an_invalid_client(
    boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    """What is wrong with the client precedes what it may not: it was 400."""
    service = make_service(boss, expires_at=rfc3339(clock.now() + timedelta(minutes=5)))
    boss.post(f"{service.path}/suspend")
    assert code_of(request_token(client, service)) == (400, "unauthorized_client")

    clock.advance(minutes=6)

    answer = request_token(client, service)
    assert code_of(answer) == (401, "invalid_client")
    assert "expired" in answer.get_json()["error_description"]


@pytest.mark.parametrize("rest", ["&scope", "&scope=", "&", "&&resource"])
def test_a_parameter_without_a_value_counts_as_absent(
    client: JsonClient, service: MadeService, rest: str
) -> None:
    """RFC 6749 §3.2. Without an equals sign it was 400."""
    headers = basic(service.id, service.key.text)
    form = f"grant_type=client_credentials{rest}"

    answer = client.post(TOKEN, headers=headers, data=form, content_type=FORM)

    assert answer.status_code == 200


def test_a_personal_key_is_no_client_secret(client: JsonClient, boss: SignedInClient) -> None:
    personal = make_key(boss, OWN_KEYS)
    user_id = boss.get("/api/v1/auth/me").get_json()["id"]

    answer = client.post(
        TOKEN, headers=basic(user_id, personal.text), json={"grant_type": "client_credentials"}
    )

    assert code_of(answer) == (401, "invalid_client")


def test_a_suspended_account_or_a_foreign_network_is_unauthorized(
    app: Flask, boss: SignedInClient, client: JsonClient
) -> None:
    service = make_service(boss, allowed_networks=["192.0.2.0/24"])

    elsewhere = request_token(client, service)
    boss.post(f"{service.path}/suspend")
    suspended = request_token(client.from_address("192.0.2.7"), service)

    assert code_of(elsewhere) == code_of(suspended) == (400, "unauthorized_client")
    assert "address" in elsewhere.get_json()["error_description"]
    assert "suspended" in suspended.get_json()["error_description"]
    rows = audit_rows(app, action="auth.token_issued")
    assert [(row.outcome, row.details["error"]) for row in rows] == [
        ("failure", "unauthorized_client")
    ] * 2


def test_a_requested_scope_is_exactly_what_the_token_may(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    answer = request_token(client, service, scope="users:read stats:read", audience="aima")

    assert answer.get_json()["scope"] == "stats:read users:read"
    holder = client.as_user(answer.get_json()["access_token"])
    assert holder.get(VERIFY).get_json()["permissions"] == ["stats:read", "users:read"]
    boss.patch(service.path, json={"roles": ["admin"]})
    assert holder.get(VERIFY).get_json()["permissions"] == ["stats:read", "users:read"]
    boss.patch(service.path, json={"roles": []})
    assert holder.get(VERIFY).get_json()["permissions"] == []


def test_a_scope_may_have_wildcards_that_the_account_holds(
    boss: SignedInClient, client: JsonClient
) -> None:
    service = make_service(boss, roles=["admin"])

    for scope, shown in (("users:* roles:read", "roles:read users:*"), ("users:read " * 2, None)):
        answer = request_token(client, service, scope=scope.strip())
        found = answer.get_json()["scope"]
        assert found == (shown or "users:read")
        assert payload_of(answer.get_json()["access_token"])["permissions"] == found.split(" ")
    for refused in ("*", "media:*", "users:* media:upload", "USERS:READ", " users:read"):
        assert code_of(request_token(client, service, scope=refused)) == (400, "invalid_scope")


def test_made_up_client_ids_are_limited_by_the_network(
    app: Flask, make_app: MakeApp, service: MadeService
) -> None:
    """Each was counted alone, so that anybody could fill the audit log."""
    limited = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="5/minute")
    here, there = JsonClient(limited), JsonClient(limited, ip_address="192.0.2.9")

    made_up = [request_token(here, service, client_id=str(uuid4())) for _ in range(8)]
    right = [request_token(here, service).status_code for _ in range(8)]

    assert [answer.status_code for answer in made_up] == [401] * 5 + [429] * 3
    refused = made_up[-1].get_json()
    assert (refused["error"], refused["code"]) == ("rate_limited", "rate_limited")
    assert int(made_up[-1].headers["Retry-After"]) > 0
    assert right == [200] * 8
    assert request_token(there, service, client_id=str(uuid4())).status_code == 401
    rows = audit_rows(app, action="auth.token_issued")
    assert len([row for row in rows if row.outcome == "failure"]) == 6


def test_wrong_secrets_lock_no_account(client: JsonClient, service: MadeService) -> None:
    """Anybody knows a client id, and could keep the service out."""
    wrong = wrong_secret(service.key.text)

    codes = {code_of(request_token(client, service, client_secret=wrong)) for _ in range(30)}

    assert codes == {(401, "invalid_client")}
    assert request_token(client, service).status_code == 200


def test_without_a_scope_a_token_follows_the_account(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    holder = client.as_user(token_of(client, service))

    boss.patch(service.path, json={"roles": ["admin"]})
    assert "roles:assign" in holder.get(VERIFY).get_json()["permissions"]
    boss.patch(service.path, json={"roles": []})
    assert holder.get(VERIFY).get_json()["permissions"] == []
    nothing = request_token(client, service)
    assert "scope" not in nothing.get_json()


def test_a_long_scope_is_kept_by_the_service(
    make_app: MakeApp, boss: SignedInClient, clock: ManualClock
) -> None:
    """A token without its scope would allow everything that the account may do."""
    names = [f"media:action-{number:03}" for number in range(200)]
    boss.post("/api/v1/roles/", json={"name": "media", "permissions": names})
    service = make_service(boss, roles=["media", "moderator"])
    client = JsonClient(make_app(JWT_MAX_BYTES="2000"))

    answer = request_token(client, service, scope=" ".join(names))

    token = answer.get_json()["access_token"]
    assert len(token) <= 2000
    assert payload_of(token)["permissions_omitted"] is True
    assert not {"permissions", "scope"} & payload_of(token).keys()
    holder = client.as_user(token)
    assert holder.get(VERIFY).get_json()["permissions"] == names
    assert code_of(holder.get("/api/v1/users/")) == (403, "permission_denied")
    assert answer.get_json()["scope"].split(" ") == names


def test_a_long_token_without_a_scope_follows_the_account(
    make_app: MakeApp, boss: SignedInClient
) -> None:
    names = [f"media:action-{number:03}" for number in range(200)]
    boss.post("/api/v1/roles/", json={"name": "media", "permissions": names})
    service = make_service(boss, roles=["media"])
    client = JsonClient(make_app(JWT_MAX_BYTES="2000"))

    answer = request_token(client, service).get_json()

    assert answer["scope"].split(" ") == names
    claims = payload_of(answer["access_token"])
    assert claims["permissions_omitted"] is True
    assert not {"permissions", "scope"} & claims.keys()
    holder = client.as_user(answer["access_token"])
    assert holder.get(VERIFY).get_json()["permissions"] == names
    boss.patch(service.path, json={"roles": ["moderator"]})
    assert "users:read" in holder.get(VERIFY).get_json()["permissions"]


def test_what_is_stored_of_a_token_is_deleted_when_it_has_expired(
    app: Flask,
    services: Services,
    boss: SignedInClient,
    client: JsonClient,
    service: MadeService,
    clock: ManualClock,
) -> None:
    """And not before: a revoked token would be accepted again."""
    token = token_of(client, service)
    client.post("/api/v1/auth/revoke", json={"token": token})

    def stored() -> int:
        with app.app_context():
            services.clean_up.delete_due()
            with reading() as connection:
                return len(connection.execute(table_of(ClientToken).select()).all())

    clock.advance(minutes=29)
    assert stored() == 1
    assert code_of(client.as_user(token).get(VERIFY)) == (401, "token_revoked")
    clock.advance(minutes=2)
    assert stored() == 0
    assert code_of(client.as_user(token).get(VERIFY)) == (401, "token_expired")


def test_a_token_ends_with_its_key(
    boss: SignedInClient, client: JsonClient, clock: ManualClock
) -> None:
    service = make_service(boss, expires_at=rfc3339(clock.now() + timedelta(seconds=90)))
    answer = request_token(client, service)
    assert 0 < answer.get_json()["expires_in"] <= 90
    holder = client.as_user(answer.get_json()["access_token"])
    assert holder.get(VERIFY).status_code == 200

    clock.advance(seconds=120)

    assert code_of(holder.get(VERIFY)) == (401, "token_expired")


@pytest.mark.parametrize("death", ["revoke", "rotate", "suspend", "delete"])
def test_what_ends_a_key_or_account_ends_its_tokens(
    boss: SignedInClient, client: JsonClient, service: MadeService, death: str
) -> None:
    holder = client.as_user(token_of(client, service))
    assert holder.get(VERIFY).status_code == 200

    if death == "revoke":
        boss.delete(service.key.path)
    elif death == "rotate":
        boss.post(f"{service.key.path}/rotate", json={"overlap_seconds": 0})
    elif death == "suspend":
        boss.post(f"{service.path}/suspend")
    else:
        boss.delete(service.path)

    assert code_of(holder.get(VERIFY)) == (401, "token_revoked")


def test_tokens_of_a_suspended_account_stay_revoked_within_the_same_second(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    """The versions decide and not the times, which tokens have in whole seconds."""
    old = client.as_user(token_of(client, service))
    boss.post(f"{service.path}/suspend")
    boss.post(f"{service.path}/activate")
    new = client.as_user(token_of(client, service))

    assert code_of(old.get(VERIFY)) == (401, "token_revoked")
    assert new.get(VERIFY).status_code == 200
    assert client.as_user(service.key.text).get(VERIFY).status_code == 200


def test_a_token_may_what_the_list_of_its_key_allows(
    boss: SignedInClient, client: JsonClient
) -> None:
    service = make_service(boss, roles=["moderator"], permissions=["users:read"])
    answer = request_token(client, service)
    holder = client.as_user(answer.get_json()["access_token"])

    def held() -> list[str]:
        found: list[str] = holder.get(VERIFY).get_json()["permissions"]
        return found

    assert (answer.get_json()["scope"], held()) == ("users:read", ["users:read"])
    assert code_of(request_token(client, service, scope="stats:read")) == (400, "invalid_scope")
    boss.patch(service.key.path, json={"permissions": ["users:read", "stats:read"]})
    assert held() == ["stats:read", "users:read"]
    boss.patch(service.key.path, json={"permissions": []})
    assert held() == []
    assert "scope" not in request_token(client, service).get_json()


def test_a_key_bound_to_networks_binds_its_tokens(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    holder = client.as_user(token_of(client, service))
    assert holder.get(VERIFY).status_code == 200

    boss.patch(service.key.path, json={"allowed_networks": ["192.0.2.0/24"]})

    assert code_of(holder.get(VERIFY)) == (403, "network_not_allowed")
    assert holder.from_address("192.0.2.1").get(VERIFY).status_code == 200


def test_a_revoked_token_ends_alone(
    app: Flask, boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    first, second = token_of(client, service), token_of(client, service)
    assert client.as_user(first).get(VERIFY).status_code == 200

    for token in (first, first, "nonsense"):
        assert client.post("/api/v1/auth/revoke", json={"token": token}).status_code == 200

    assert code_of(client.as_user(first).get(VERIFY)) == (401, "token_revoked")
    assert client.as_user(second).get(VERIFY).status_code == 200
    assert client.as_user(service.key.text).get(VERIFY).status_code == 200
    assert boss.post(INTROSPECT, json={"token": first}).get_json() == {"active": False}
    assert len(audit_rows(app, action="auth.token_revoked")) == 1


def test_introspection_describes_client_tokens(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    token = token_of(client, service, scope="users:read")

    found = boss.post(INTROSPECT, json={"token": token}).get_json()

    assert (found["active"], found["token_type"], found["actor_type"]) == (
        True,
        "access",
        "service",
    )
    assert found["sub"] == found["client_id"] == service.id
    assert found["sid"] == found["key_id"] == service.key.id
    assert (found["scope"], found["username"]) == ("users:read", service.name)
    assert found.keys() == {
        *("active", "sub", "sid", "jti", "username", "actor_type", "client_id", "key_id"),
        *("scope", "roles", "token_type", "iat", "exp", "iss", "aud"),
    }
    claims = payload_of(token)
    assert {name: found[name] for name in ("jti", "iat", "exp", "iss", "aud", "roles")} == {
        name: claims[name] for name in ("jti", "iat", "exp", "iss", "aud", "roles")
    }
    boss.patch(service.key.path, json={"allowed_networks": ["192.0.2.0/24"]})
    bound = boss.post(INTROSPECT, json={"token": token}).get_json()
    assert (bound["active"], bound["allowed_networks"]) == (True, ["192.0.2.0/24"])


def test_services_introspect_by_basic(
    boss: SignedInClient, client: JsonClient, service: MadeService
) -> None:
    body = {"token": service.key.text}
    asker = make_service(boss, "asker", roles=["admin"])

    found = client.post(INTROSPECT, json=body, headers=basic(asker.id, asker.key.text))
    assert found.get_json()["active"] is True
    weak = client.post(INTROSPECT, json=body, headers=basic(service.id, service.key.text))
    assert (weak.status_code, weak.get_json()["permission"]) == (403, "tokens:introspect")
    for credentials in (
        basic(asker.id, wrong_secret(asker.key.text)),
        basic(service.id, asker.key.text),
        {"Authorization": "Basic !"},
    ):
        wrong = client.post(INTROSPECT, json=body, headers=credentials)
        assert code_of(wrong) == (401, "invalid_client")
        assert wrong.headers["WWW-Authenticate"] == 'Basic realm="userapi"'
    boss.patch(asker.key.path, json={"allowed_networks": ["192.0.2.0/24"]})
    own = basic(asker.id, asker.key.text)
    assert code_of(client.post(INTROSPECT, json=body, headers=own)) == (403, "network_not_allowed")
    near = client.from_address("192.0.2.7")
    assert near.post(INTROSPECT, json=body, headers=own).get_json()["active"] is True
    boss.post(f"{asker.path}/suspend")
    suspended = near.post(INTROSPECT, json=body, headers=own)
    assert code_of(suspended) == (401, "invalid_client")
    assert suspended.headers["WWW-Authenticate"] == 'Basic realm="userapi"'
    elsewhere = client.get(VERIFY, headers=basic(asker.id, asker.key.text))
    assert code_of(elsewhere) == (401, "authentication_required")


def test_a_token_of_a_user_has_no_claims_of_a_client(boss: SignedInClient) -> None:
    assert boss.token is not None
    assert not {"client_id", "key_id", "scope"} & payload_of(boss.token).keys()


def test_the_metadata_describes_the_endpoints(make_app: MakeApp, service: MadeService) -> None:
    issuer = "https://accounts.example.com/tenant/one"
    client = JsonClient(make_app(JWT_ISSUER=issuer, PUBLIC_BASE_URL="https://accounts.example.com"))

    answer = client.get(METADATA)

    body = answer.get_json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "public, max-age=300")
    base = "https://accounts.example.com"
    assert body == {
        "issuer": issuer,
        "token_endpoint": f"{base}/api/v1/auth/token",
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "revocation_endpoint": f"{base}/api/v1/auth/revoke",
        "introspection_endpoint": f"{base}/api/v1/auth/introspect",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "Bearer"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "service_documentation": f"{base}/docs",
    }
    of_path = client.get(f"{METADATA}/tenant/one")
    assert of_path.get_json() == body
    assert of_path.headers["Cache-Control"] == "public, max-age=300"
    assert client.get(f"{METADATA}/tenant/two").status_code == 404
    token = client.post(
        TOKEN, headers=basic(service.id, service.key.text), json={"grant_type": GRANT}
    ).get_json()["access_token"]
    assert payload_of(token)["iss"] == issuer
