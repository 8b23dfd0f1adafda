"""Reading token requests and client credentials as OAuth defines them (RFC 6749 §2.3, §3.2, §4.4).

The rules differ from those of the other endpoints: unknown parameters are ignored, empty ones count
as absent, and a form has the same meaning as JSON.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from flask import request

from userapi.authentication.refusals import TokenRefused
from userapi.errors import Malformed
from userapi.machines.client_tokens import ClientSecret, TokenRequest
from userapi.machines.errors import InvalidClient, OAuthRequestInvalid
from userapi.machines.status import KeyReference

from .authorization import authorization
from .bodies import FORM, parse_json, read_body, require_media_type
from .context import request_state, services
from .key_access import ACCEPTED, actor_of_key, require_usable_key

MAX_PARAMETERS = 20
TARGETS = ("audience", "resource")


@dataclass(frozen=True, slots=True)
class _Basic:
    """An Authorization header of the scheme Basic; `client` is None if it is malformed."""

    client: ClientSecret | None


def read_token_request() -> TokenRequest:
    """Return the token request. Query parameters are never read. Raises OAuthRequestInvalid."""
    given = _parameters()
    basic = _basic()
    return TokenRequest(
        grant_type=given.get("grant_type"),
        client=_client(basic, given),
        scope=given.get("scope"),
        targets=tuple(given[name] for name in TARGETS if name in given),
    )


def claimed_client_id() -> str:
    """Return the client id of the Basic header, for the rate limit; empty without one."""
    basic = _basic()
    return basic.client.client_id if basic is not None and basic.client is not None else ""


def sends_client_credentials() -> bool:
    """Return whether the request authenticates a client by the scheme Basic."""
    scheme, _ = authorization()
    return scheme == "basic"


def client_reference() -> KeyReference:
    """Return the key of the Basic header, which may have ended. Raises InvalidClient."""
    basic, state = _basic(), request_state()
    if basic is None or basic.client is None:
        raise InvalidClient()
    if state.key_reference is None:
        state.key_reference = services().client_tokens.reference(basic.client)
    return state.key_reference


def authenticate_client() -> None:
    """Make the client of the Basic header the actor of this request.

    Raises InvalidClient, NetworkNotAllowed.
    """
    reference, state = client_reference(), request_state()
    try:
        live = require_usable_key(reference)
    except TokenRefused as exc:
        raise InvalidClient() from exc
    if str(live.owner_id) != claimed_client_id():
        raise InvalidClient()
    services().key_authentication.count(ACCEPTED)
    state.live_key = live
    state.actor = actor_of_key(live)


def _client(basic: _Basic | None, given: Mapping[str, str]) -> ClientSecret | None:
    client_id, secret = given.get("client_id"), given.get("client_secret")
    if basic is None:
        if client_id is None or secret is None:
            return None
        return ClientSecret(client_id=client_id, secret=secret)
    if secret is not None:
        raise OAuthRequestInvalid("Send the client credentials once: by Basic or in the body.")
    if basic.client is not None and client_id not in (None, basic.client.client_id):
        raise OAuthRequestInvalid("The body names another client_id than Basic.")
    return basic.client


def _basic() -> _Basic | None:
    """Return the credentials of the Basic header, percent-encoded or not; None without one."""
    scheme, text = authorization()
    if scheme != "basic":
        return None
    try:
        decoded = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return _Basic(None)
    client_id, colon, secret = decoded.partition(":")
    if not colon:
        return _Basic(None)
    return _Basic(ClientSecret(client_id=unquote_plus(client_id), secret=unquote_plus(secret)))


def _parameters() -> dict[str, str]:
    """Return the parameters of the body that have a value."""
    raw = read_body()
    if not raw and not request.mimetype:
        return {}
    if require_media_type(FORM, "application/json") == FORM:
        return _form(raw)
    return _json(raw)


def _form(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as exc:
        raise OAuthRequestInvalid("The body is not a well-formed form.") from exc
    if len({name for name, _ in pairs}) < len(pairs):
        raise OAuthRequestInvalid("A parameter is repeated.")
    return {name: value for name, value in pairs if value}


def _json(raw: bytes) -> dict[str, str]:
    try:
        given: Any = parse_json(raw)
    except Malformed as exc:
        raise OAuthRequestInvalid(exc.detail) from exc
    if not isinstance(given, dict):
        raise OAuthRequestInvalid("The body must be a JSON object.")
    present = {name: value for name, value in given.items() if value not in (None, "")}
    for name in ("grant_type", "client_id", "client_secret", "scope", *TARGETS):
        if name in present and not isinstance(present[name], str):
            raise OAuthRequestInvalid(f"{name} must be a string.")
    return present
