"""Standard OAuth clients work unmodified against the service as it is shipped: Authlib,
requests-oauthlib, and curl."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from oauthlib.oauth2 import BackendApplicationClient
from oauthlib.oauth2.rfc6749.errors import OAuth2Error
from requests_oauthlib import OAuth2Session

from tests.operations.guide import blocks_of
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.raw_http import RawConnection

PASSWORD = "violet-harbour-93-lantern"
FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4", "OAUTHLIB_INSECURE_TRANSPORT": "1"}


class Shipped:
    """The running service, and a service account on it with its key."""

    def __init__(self, service: GunicornService) -> None:
        self.base = service.base_url
        login = {"username": "admin", "password": PASSWORD}
        tokens = self.call("POST", "/api/v1/auth/login", login)
        self.admin = {"Authorization": f"Bearer {tokens['access_token']}"}
        account = self.call(
            "POST", "/api/v1/service-accounts/", {"name": "robot", "roles": ["moderator"]}
        )
        self.client_id = account["id"]
        self.path = f"/api/v1/service-accounts/{self.client_id}"
        key = self.call("POST", f"{self.path}/api-keys/", {"name": "test"})
        self.secret, self.key_id = key["key"], key["id"]
        self.token_url = f"{self.base}/api/v1/auth/token"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(
            method, self.base + path, json=body, headers=getattr(self, "admin", None), timeout=60
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def running() -> Iterator[GunicornService]:
    with GunicornService({**FAST, "RATE_LIMIT_ENABLED": "false"}) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture(scope="module")
def shipped(running: GunicornService) -> Shipped:
    return Shipped(running)


@pytest.fixture(autouse=True)
def _insecure_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let oauthlib use plain HTTP, as the service is started by tests."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_fetches_and_uses_a_token(shipped: Shipped, method: str) -> None:
    with AuthlibSession(
        shipped.client_id,
        shipped.secret,
        scope="users:read stats:read",
        token_endpoint_auth_method=method,
    ) as session:
        token = session.fetch_token(shipped.token_url, grant_type="client_credentials")
        answer = session.get(f"{shipped.base}/api/v1/users/")

    assert set(token["scope"].split(" ")) == {"users:read", "stats:read"}
    assert answer.status_code == 200


def test_authlib_revokes_a_token(shipped: Shipped) -> None:
    with AuthlibSession(shipped.client_id, shipped.secret) as session:
        token = session.fetch_token(shipped.token_url, grant_type="client_credentials")
        revoked = session.revoke_token(f"{shipped.base}/api/v1/auth/revoke")
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        answer = requests.get(f"{shipped.base}/api/v1/auth/verify", headers=headers, timeout=60)

    assert (revoked.status_code, answer.status_code) == (200, 401)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scope": "users:delete"}, "invalid_scope"),
        ({"audience": "other"}, "invalid_target"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_authlib_raises_the_error(shipped: Shipped, change: dict[str, str], error: str) -> None:
    parameters = {"grant_type": "client_credentials", **change}
    with AuthlibSession(shipped.client_id, shipped.secret) as session:
        with pytest.raises(OAuthError) as refused:
            session.fetch_token(shipped.token_url, **parameters)

    assert refused.value.error == error


def test_both_libraries_raise_for_a_wrong_secret(shipped: Shipped) -> None:
    """An error without the members of OAuth would be taken for a token."""
    with AuthlibSession(shipped.client_id, "wrong") as session:
        with pytest.raises(OAuthError) as refused:
            session.fetch_token(shipped.token_url, grant_type="client_credentials")
    assert refused.value.error == "invalid_client"
    with OAuth2Session(client=BackendApplicationClient(shipped.client_id)) as other:
        with pytest.raises(OAuth2Error) as raised:
            other.fetch_token(shipped.token_url, client_id=shipped.client_id, client_secret="wrong")
    assert raised.value.error == "invalid_client"


@pytest.mark.parametrize("in_body", [False, True])
def test_requests_oauthlib_fetches_and_uses_a_token(shipped: Shipped, in_body: bool) -> None:
    client = BackendApplicationClient(shipped.client_id, scope=["users:read"])
    with OAuth2Session(client=client) as session:
        token = session.fetch_token(
            shipped.token_url,
            client_id=shipped.client_id,
            client_secret=shipped.secret,
            include_client_id=in_body,
        )
        answer = session.get(f"{shipped.base}/api/v1/users/")

    assert token.scopes == ["users:read"]
    assert answer.status_code == 200


def test_authlib_accepts_the_metadata(shipped: Shipped) -> None:
    answer = requests.get(f"{shipped.base}/.well-known/oauth-authorization-server", timeout=60)
    document = {**answer.json(), "issuer": "https://accounts.example.com"}
    for name, value in document.items():
        if isinstance(value, str):
            document[name] = value.replace("http://", "https://")

    AuthorizationServerMetadata(document).validate()


def test_curl_fetches_and_uses_a_token(shipped: Shipped) -> None:
    def curl(*arguments: str) -> Any:
        run = subprocess.run(
            ["curl", "--silent", "--show-error", "--fail", *arguments],
            capture_output=True,
            check=True,
            timeout=60,
        )
        return json.loads(run.stdout)

    credentials = f"{shipped.client_id}:{shipped.secret}"
    token = curl("-u", credentials, "-d", "grant_type=client_credentials", shipped.token_url)
    verified = curl(
        "-H", f"Authorization: Bearer {token['access_token']}", f"{shipped.base}/api/v1/auth/verify"
    )
    by_key = curl(
        "-H", f"Authorization: Bearer {shipped.secret}", f"{shipped.base}/api/v1/auth/verify"
    )

    assert verified["user_id"] == by_key["user_id"] == shipped.client_id


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Transfer-Encoding: chunked", b"zz\r\ngrant_type=client_credentials\r\n0\r\n\r\n"),
        ("Content-Length: 500", b"grant_type=client_credentials"),
    ],
    ids=["chunks", "length"],
)
def test_a_body_that_is_not_well_formed_is_an_invalid_request(
    shipped: Shipped, running: GunicornService, headers: str, body: bytes
) -> None:
    """The error was no registered one (RFC 6749 §5.2)."""
    head = (
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n{headers}\r\n\r\n"
    )
    with RawConnection("127.0.0.1", running.port) as connection:
        connection.send(head.encode() + body)
        connection.socket.shutdown(socket.SHUT_WR)
        answer = connection.receive()

    problem = json.loads(answer.body)
    assert (answer.status, answer.header("content-type")) == (400, "application/json")
    assert (problem["error"], problem["code"]) == ("invalid_request", "invalid_request")
    assert problem["error_description"]


def test_the_commands_of_the_guide_create_a_key_and_fetch_a_token(shipped: Shipped) -> None:
    """docs/consuming.md, with the address and the network of this machine."""
    guide = (REPOSITORY / "docs" / "consuming.md").read_text("utf-8")
    [creation, exchange] = [
        block.text.replace("https://accounts.example.com", shipped.base)
        .replace("192.0.2.0/24", "127.0.0.0/8")
        .replace("media-editor", "moderator")
        for block in blocks_of(guide)
        if block.section == "Call with a service account"
    ]
    admin = shipped.admin["Authorization"].removeprefix("Bearer ")

    account, key = run(creation, ADMIN=admin, ACCOUNT=shipped.client_id)
    [token] = run(exchange, ACCOUNT=shipped.client_id, KEY=key["key"])

    assert (account["name"], account["roles"]) == ("media-worker", ["moderator"])
    assert (key["name"], key["allowed_networks"]) == ("production", ["127.0.0.0/8"])
    assert token["scope"] == "users:read"


def run(commands: str, **variables: str) -> list[Any]:
    """Return the JSON documents that commands of a shell print one after the other."""
    done = subprocess.run(
        ["bash", "-euc", commands],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.replace("}{", "}\n{").splitlines()]
