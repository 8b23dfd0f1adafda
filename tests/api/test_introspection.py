"""Introspection, revocation and the public keys, as other services use them."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

FORM = "application/x-www-form-urlencoded"
INACTIVE = {"active": False}


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def inspector(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("inspector", roles=["superadmin"]))


def introspect(client: JsonClient, token: str) -> Any:
    return client.post("/api/v1/auth/introspect", json={"token": token}).get_json()


def send_form(client: JsonClient, path: str, text: str, content_type: str = FORM) -> Any:
    return client.post(f"/api/v1/auth/{path}", data=text, content_type=content_type)


def is_signed_in(session: SignedInClient) -> bool:
    return bool(session.get("/api/v1/auth/me").status_code == 200)


# Forms


@pytest.mark.parametrize("hint", ["refresh_token", "of_another_kind", ""])
def test_a_hint_changes_nothing(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn, hint: str
) -> None:
    token = log_in(robin).access_token

    answer = send_form(inspector, "introspect", f"token={token}&token_type_hint={hint}")

    assert answer.get_json()["active"] is True


@pytest.mark.parametrize("path", ["introspect", "revoke"])
def test_other_parameters_of_oauth_libraries_are_ignored(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn, path: str
) -> None:
    """Libraries put client_id and client_secret into the form (RFC 6749 §2.3.1); they got 422."""
    token = log_in(robin).access_token

    answer = send_form(inspector, path, f"token={token}&client_id=media&client_secret=x")

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["introspect", "revoke"])
@pytest.mark.parametrize("text", ["", " ", "nonsense", "a.b.c", "x" * 60_000])
def test_a_token_of_any_length_is_inactive(inspector: SignedInClient, path: str, text: str) -> None:
    """More than 16384 characters were 422, but revocation promises 200 for any text."""
    as_form = inspector.post(f"/api/v1/auth/{path}", data={"token": text})
    as_json = inspector.post(
        f"/api/v1/auth/{path}", json={"token": text, "token_type_hint": "anything at all" * 9}
    )

    body = b'{"active":false}' if path == "introspect" else b""
    assert (as_form.status_code, as_form.data) == (200, body)
    assert (as_json.status_code, as_json.data) == (200, body)


@pytest.mark.parametrize("path", ["introspect", "revoke"])
def test_a_duplicate_field_is_rejected(inspector: SignedInClient, path: str) -> None:
    answer = send_form(inspector, path, "token=one&token=two")

    assert answer.status_code == 422
    assert [(e["field"], e["code"]) for e in answer.get_json()["errors"]] == [("token", "repeated")]


@pytest.mark.parametrize("path", ["introspect", "revoke"])
def test_an_unknown_member_of_json_is_rejected(inspector: SignedInClient, path: str) -> None:
    answer = inspector.post(f"/api/v1/auth/{path}", json={"token": "x", "client_id": "media"})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["code"] == "unknown_field"


@pytest.mark.parametrize("text", ["", "token_type_hint=access_token"])
def test_a_form_without_a_token_is_rejected(inspector: SignedInClient, text: str) -> None:
    answer = send_form(inspector, "introspect", text)

    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "token")


@pytest.mark.parametrize("text", ["token", "token=%ff", b"token=\xff"])
def test_a_malformed_form_is_rejected(inspector: SignedInClient, text: Any) -> None:
    answer = send_form(inspector, "introspect", text)

    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed_request")


def test_a_form_in_another_encoding_is_rejected(inspector: SignedInClient) -> None:
    answer = send_form(inspector, "introspect", "token=x", f"{FORM}; charset=latin-1")

    assert (answer.status_code, answer.get_json()["code"]) == (415, "unsupported_media_type")


def test_other_endpoints_accept_no_form(client: JsonClient) -> None:
    answer = send_form(client, "login", "username=robin&password=x")

    assert answer.status_code == 415


# Inactive and active tokens


def test_the_response_is_not_stored(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    body = {"token": log_in(robin).access_token}

    answer = inspector.post("/api/v1/auth/introspect", json=body)

    assert answer.headers["Cache-Control"] == "no-store"


def _suspend(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> None:
    assert boss.post(f"/api/v1/users/{robin.id}/suspend").status_code == 200


def _delete(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> None:
    assert boss.delete(f"/api/v1/users/{robin.id}").status_code == 204


def _change_password(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> None:
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}
    assert session.post("/api/v1/auth/change-password", json=body).status_code == 200


@pytest.mark.parametrize(
    "end",
    [_suspend, _delete, _change_password],
    ids=lambda function: function.__name__,
)
def test_a_token_that_no_endpoint_accepts_is_inactive(
    inspector: SignedInClient,
    robin: MadeUser,
    log_in: LogIn,
    end: Callable[[SignedInClient, MadeUser, SignedInClient], None],
) -> None:
    session = log_in(robin)
    assert introspect(inspector, session.access_token)["active"] is True

    end(inspector, robin, session)

    assert not is_signed_in(session)
    assert introspect(inspector, session.access_token) == INACTIVE


def test_introspection_shows_no_roles_until_a_required_password_change(
    inspector: SignedInClient, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("restricted", roles=["moderator"])
    session = log_in(robin)
    body = {"must_change_password": True}
    assert inspector.patch(f"/api/v1/users/{robin.id}", json=body).status_code == 200

    for token in (session.access_token, session.refresh_token):
        found = introspect(inspector, token)

        assert found["active"] is True
        assert (found["sub"], found["roles"], found["scope"]) == (robin.id, [], "")


def test_introspection_shows_a_role_change_immediately(
    inspector: SignedInClient, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)
    before = introspect(inspector, session.access_token)

    inspector.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})
    after = introspect(inspector, session.access_token)

    assert (before["roles"], before["scope"]) == (["user"], "")
    assert after["roles"] == ["moderator"]
    assert "users:suspend" in after["scope"].split(" ")


def test_an_expired_token_is_inactive(
    inspector: SignedInClient,
    robin: MadeUser,
    log_in: LogIn,
    make_user: MakeUser,
    clock: ManualClock,
) -> None:
    session = log_in(robin)

    clock.advance(minutes=31)
    later = log_in(make_user("later", roles=["admin"]))

    assert introspect(later, session.access_token) == INACTIVE
    assert introspect(later, session.refresh_token)["active"] is True


def _without_signature(token: str) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt"}).encode())
    return f"{header.decode().rstrip('=')}.{token.split('.')[1]}."


FORGERIES: dict[str, Callable[[SignedInClient], str]] = {
    "no signature": lambda session: _without_signature(session.access_token),
    "another body": lambda session: ".".join(
        [
            session.access_token.split(".")[0],
            session.refresh_token.split(".")[1],
            session.access_token.split(".")[2],
        ]
    ),
    "another key": lambda session: jwt.encode(
        jwt.decode(session.access_token, options={"verify_signature": False}),
        "another-key-of-more-than-32-bytes-in-all",
        headers={"typ": "at+jwt"},
    ),
    "too long": lambda session: session.access_token + "A" * 8000,
    "not ASCII": lambda session: session.access_token + "é",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_token_is_inactive_and_ends_no_session(
    inspector: SignedInClient,
    robin: MadeUser,
    log_in: LogIn,
    forge: Callable[[SignedInClient], str],
) -> None:
    session = log_in(robin)
    token = forge(session)

    answer = introspect(inspector, token)
    revoked = inspector.post("/api/v1/auth/revoke", json={"token": token})

    assert answer == INACTIVE
    assert revoked.status_code == 200
    assert is_signed_in(session)


# Revoking


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_by_form_ends_the_session_and_is_audited(
    app: Flask, client: JsonClient, robin: MadeUser, log_in: LogIn, kind: str
) -> None:
    session, other = log_in(robin), log_in(robin)

    answer = send_form(client, "revoke", f"token={getattr(session, kind)}&token_type_hint={kind}")

    assert (answer.status_code, answer.data) == (200, b"")
    assert not is_signed_in(session)
    assert is_signed_in(other)
    (row,) = audit_rows(app, action="auth.logout")
    assert (row.actor_username, str(row.session_id)) == ("robin", session.session_id)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_a_token_revoked_by_a_password_change_cannot_end_the_session(
    client: JsonClient, robin: MadeUser, log_in: LogIn, kind: str
) -> None:
    """A stolen pair could still end the session after its owner had changed the password."""
    session = log_in(robin)
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}
    renewed = session.post("/api/v1/auth/change-password", json=body).get_json()

    answer = client.post("/api/v1/auth/revoke", json={"token": getattr(session, kind)})

    assert answer.status_code == 200
    assert is_signed_in(SignedInClient(client.app, renewed))


# Keys


@pytest.fixture
def signing_app(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """Return the application with its own key."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "signing.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return make_app(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY_FILE=str(path))


def test_other_services_verify_tokens_with_the_public_keys(
    signing_app: Flask, robin: MadeUser
) -> None:
    client = JsonClient(signing_app)
    body = {"username": robin.username, "password": robin.password}
    token = client.post("/api/v1/auth/login", json=body).get_json()["access_token"]

    answer = client.get("/.well-known/jwks.json")

    assert answer.headers["Cache-Control"] == "public, max-age=300"
    key = jwt.PyJWKSet.from_dict(answer.get_json())[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="aima")
    assert claims["sub"] == robin.id
    assert "d" not in answer.get_json()["keys"][0]
