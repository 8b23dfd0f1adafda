"""What tokens contain, and the strict reading of their text.

Everything here works on a token whose signature is not verified yet, or on its verified payload.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from userapi.authentication.refusals import TokenInvalid
from userapi.infrastructure import strict_json
from userapi.sessions.authentication_level import Authentication

MAX_TOKEN_LENGTH = 16 * 1024
MAX_TIMESTAMP = 253402300799  # The last second of the year 9999.
# RFC 7515 §7.1. PyJWT also accepts padding, so one token would have several spellings.
COMPACT_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientClaims:
    """The claims that only tokens of services have. The session is their API key."""

    scope: tuple[str, ...] | None
    """The scope that the service requested; None if it requested none, or a very long one."""
    scope_requested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """The claims of a verified access token."""

    user_id: UUID
    session_id: UUID
    session_version: int
    jti: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...] | None
    """None if the token would have been too long with them."""
    authentication: Authentication | None
    """None in tokens of releases that did not write these claims."""
    issued_at: int
    not_before: int
    expires_at: int
    client: ClientClaims | None = None
    """None for the token of a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshClaims:
    """The claims of a verified refresh token."""

    user_id: UUID
    session_id: UUID
    session_version: int
    generation: int
    jti: str
    issued_at: int
    expires_at: int


class ClaimReader:
    """Reads the claims of a payload. Raises TokenInvalid for a claim of another type."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._payload = payload

    def text(self, name: str) -> str:
        """Return a claim that is text and not empty."""
        value = self._payload.get(name)
        if not isinstance(value, str) or not value:
            raise TokenInvalid()
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a claim that is a list of texts."""
        value = self._payload.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise TokenInvalid()
        return tuple(value)

    def permissions(self) -> tuple[str, ...] | None:
        """Return the permissions, or None if the token states that they are omitted."""
        if "permissions_omitted" not in self._payload:
            return self.texts("permissions")
        if self._payload["permissions_omitted"] is not True or "permissions" in self._payload:
            raise TokenInvalid()
        return None

    def authentication(self) -> Authentication | None:
        """Return how the user was authenticated (RFC 9068 §2.2.1), or None."""
        if not {"acr", "amr", "auth_time"} & self._payload.keys():
            return None
        at = datetime.fromtimestamp(self.integer("auth_time"), UTC)
        return Authentication(self.text("acr"), self.texts("amr"), at)

    def client(self) -> ClientClaims | None:
        """Return the claims of a service's token; None for a token of a user.

        A client token names its client as the subject and its key as the session.
        """
        if not self._payload.keys() & {"client_id", "key_id"}:
            return None
        if self.uuid("client_id") != self.uuid("sub") or self.uuid("key_id") != self.uuid("sid"):
            raise TokenInvalid()
        self.uuid("jti")
        requested = self._payload.get("scope_requested", False)
        if not isinstance(requested, bool):
            raise TokenInvalid()
        scope = self.text("scope") if requested and "scope" in self._payload else None
        return ClientClaims(
            scope=None if scope is None else tuple(scope.split(" ")), scope_requested=requested
        )

    def integer(self, name: str) -> int:
        """Return a claim that is a number, such as a time in seconds."""
        value = self._payload.get(name)
        if type(value) is not int or not 0 <= value <= MAX_TIMESTAMP:
            raise TokenInvalid()
        return value

    def uuid(self, name: str) -> UUID:
        """Return a claim that is a UUID in its canonical form."""
        text = self.text(name)
        try:
            value = UUID(text)
        except ValueError as exc:
            raise TokenInvalid() from exc
        # UUID() also accepts braces, urn:uuid: and a missing hyphen.
        if str(value) != text:
            raise TokenInvalid()
        return value


def strict_object(segment: str) -> dict[str, Any]:
    """Return the JSON object of a segment. Raises TokenInvalid if parsers could disagree on it."""
    try:
        padded = segment + "=" * (-len(segment) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        found = strict_json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise TokenInvalid() from exc
    if not isinstance(found, dict):
        raise TokenInvalid()
    return found


def unverified_header(token: str) -> dict[str, Any]:
    """Return the header of a token whose signature is not verified. Raises TokenInvalid."""
    if len(token) > MAX_TOKEN_LENGTH or not COMPACT_FORM.fullmatch(token):
        raise TokenInvalid()
    return strict_object(token.split(".")[0])


def require_type(token: str, token_type: str) -> None:
    """Raise TokenInvalid for a token of another type (RFC 8725 §3.11) or with extensions.

    Critical extensions: RFC 7515 §4.1.11. Keys in a header (jku, jwk, x5u, x5c) are ignored.
    """
    header = unverified_header(token)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != token_type:
        raise TokenInvalid()
    if "crit" in header or "b64" in header:
        raise TokenInvalid()
    strict_object(token.split(".")[1])
