"""Passkeys over the API: adding them, and using them in each of their places."""

from typing import Any

from tests.support.authenticator import (
    NOTHING_WRONG,
    Authenticator,
    Json,
    Wrong,
)
from tests.support.client import JsonClient
from tests.support.users import SignedInClient

ADD = "/api/v1/auth/passkeys"
SIGN_IN = "/api/v1/auth/login/passkey"
SECOND_STEP = "/api/v1/auth/login/mfa"
STEP_UP = "/api/v1/auth/step-up"


def options(client: JsonClient, path: str, body: object = None) -> Json:
    """Return the options of a ceremony; `path` is that of the ceremony."""
    answer = client.post(f"{path}/options", json=body)
    assert answer.status_code == 200, answer.text
    public_key: Json = answer.get_json()["public_key"]
    return public_key


def try_to_add(
    client: JsonClient,
    authenticator: Authenticator,
    wrong: Wrong = NOTHING_WRONG,
    **body: Any,
) -> Any:
    """Create a passkey and return the response of the service to it."""
    credential = authenticator.create(options(client, ADD), wrong)
    return client.post(ADD, json={"credential": credential, **body})


def add_passkey(
    client: SignedInClient, authenticator: Authenticator, **body: Any
) -> tuple[SignedInClient, Json]:
    """Add a passkey; return the client with the new tokens of its session, and the response."""
    answer = try_to_add(client, authenticator, **body)
    assert answer.status_code == 201, answer.text
    return SignedInClient(client.app, answer.get_json()), answer.get_json()


def try_to_sign_in(
    client: JsonClient,
    authenticator: Authenticator,
    wrong: Wrong = NOTHING_WRONG,
    **body: Any,
) -> Any:
    """Use a passkey without a password and return the response of the service."""
    credential = authenticator.get(options(client, SIGN_IN), wrong)
    return client.post(SIGN_IN, json={"credential": credential, **body})


def begin_sign_in(client: JsonClient, username: str, password: str) -> str:
    """Pass the first step of a sign-in, and return the mfa_token."""
    answer = client.post("/api/v1/auth/login", json={"username": username, "password": password})
    assert (answer.status_code, answer.get_json()["code"]) == (403, "mfa_required"), answer.text
    return str(answer.get_json()["mfa_token"])
