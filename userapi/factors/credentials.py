"""The JSON of `PublicKeyCredential.toJSON()`, decoded (WebAuthn Level 3 §5.1, §5.2).

Browsers and password managers write base64 with and without padding, and some write its plain
alphabet. Schemas have checked that the members exist and are texts; every other fault is here.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userapi.infrastructure import strict_json

PUBLIC_KEY = "public-key"
# WebAuthn Level 3 §7.1, step 25.
MAX_ID_BYTES = 1023
_PLAIN_TO_URL = str.maketrans("+/", "-_")


class MalformedCredential(ValueError):
    """The credential has the right members, but their content cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientData:
    """What the browser reports about the ceremony (WebAuthn Level 3 §5.8.1)."""

    raw: bytes
    type: str
    challenge: bytes
    origin: str
    is_embedded: bool
    """Whether the page was in a frame of another origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionAnswer:
    """The response of an authenticator to request options."""

    credential_id: bytes
    client_data: ClientData
    authenticator_data: bytes
    signature: bytes
    user_handle: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAnswer:
    """The response of an authenticator to creation options."""

    credential_id: bytes
    client_data: ClientData
    attestation_object: bytes
    transports: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCredential:
    """A passkey, as far as options list it."""

    credential_id: bytes
    transports: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorState:
    """What an authenticator reports about a passkey in each response."""

    sign_count: int
    backup_eligible: bool
    backed_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPasskey:
    """A verified new passkey."""

    public_key: bytes
    transports: list[str]
    state: AuthenticatorState


def read_assertion(credential: Mapping[str, Any]) -> AssertionAnswer:
    """Return the decoded members of an assertion. Raises MalformedCredential."""
    response = credential["response"]
    handle = response.get("userHandle")
    return AssertionAnswer(
        credential_id=_credential_id(credential),
        client_data=_client_data(response["clientDataJSON"]),
        authenticator_data=_decoded(response["authenticatorData"]),
        signature=_decoded(response["signature"]),
        # Some password managers send an empty text instead of null.
        user_handle=_decoded(handle) if handle else None,
    )


def read_registration(credential: Mapping[str, Any]) -> RegistrationAnswer:
    """Return the decoded members of a new credential. Raises MalformedCredential."""
    response = credential["response"]
    return RegistrationAnswer(
        credential_id=_credential_id(credential),
        client_data=_client_data(response["clientDataJSON"]),
        attestation_object=_decoded(response["attestationObject"]),
        transports=tuple(response.get("transports") or ()),
    )


def _credential_id(credential: Mapping[str, Any]) -> bytes:
    if credential["type"] != PUBLIC_KEY:
        raise MalformedCredential("the type is not public-key")
    credential_id = _decoded(credential["id"])
    if credential_id != _decoded(credential["rawId"]):
        raise MalformedCredential("id and rawId differ")
    if not 0 < len(credential_id) <= MAX_ID_BYTES:
        raise MalformedCredential("the id is empty or too long")
    return credential_id


def _client_data(text: str) -> ClientData:
    raw = _decoded(text)
    try:
        members = strict_json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise MalformedCredential("the client data is not JSON") from exc
    if not isinstance(members, dict):
        raise MalformedCredential("the client data is not an object")
    return ClientData(
        raw=raw,
        type=_text(members, "type"),
        challenge=_decoded(_text(members, "challenge")),
        origin=_text(members, "origin"),
        is_embedded="topOrigin" in members or members.get("crossOrigin") not in (None, False),
    )


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise MalformedCredential(f"{name} of the client data is not a text")
    return value


def _decoded(text: str) -> bytes:
    digits = text.rstrip("=").translate(_PLAIN_TO_URL)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
    except ValueError as exc:
        raise MalformedCredential("a member is not base64url") from exc
