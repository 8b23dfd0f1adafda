"""Reads access tokens: their header before, and their claims after the signature is verified."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from userapi_client.errors import TokenRefused
from userapi_client.permissions import Permissions
from userapi_client.principal import Principal

MAX_TOKEN_LENGTH = 16 * 1024
MAX_TIMESTAMP = 253402300799  # The last second of the year 9999.
# RFC 7515 §7.1, without the padding that other readers accept.
_COMPACT_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)
_jws = PyJWS()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The strictly parsed claims of a token."""

    subject: str
    session_id: str
    client_id: str | None
    key_id: str | None
    roles: tuple[str, ...]
    permissions: Permissions | None
    """None if the token omits them."""
    issued_at: int
    not_before: int
    expires_at: int
    authenticated_at: int | None
    acr: str | None
    claims: Mapping[str, Any]

    def require_time(self, now: float, leeway: float) -> None:
        """Raise TokenRefused if the token has expired or is from the future."""
        if self.expires_at + leeway <= now:
            raise TokenRefused("token_expired")
        if max(self.issued_at, self.not_before) > now + leeway:
            raise TokenRefused("token_invalid")

    def principal(self, permissions: Permissions) -> Principal:
        """Return the caller as the token describes them."""
        is_service = self.client_id is not None
        return Principal(
            id=self.subject,
            type="service" if is_service else "user",
            username=None,
            roles=self.roles,
            permissions=permissions,
            session_id=None if is_service else self.session_id,
            key_id=self.key_id,
            authenticated_at=moment(self.authenticated_at),
            acr=self.acr,
            expires_at=moment(self.expires_at),
            checked="signature",
            claims=self.claims,
        )


def moment(seconds: int | None) -> datetime | None:
    """Return a time of a claim as a datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def key_id_of(token: str, *, algorithm: str) -> str:
    """Return the `kid` of a token of this algorithm. Raises TokenRefused."""
    header = access_token_header(token)
    kid = header.get("kid")
    if header.get("alg") != algorithm or not isinstance(kid, str) or not kid:
        _refuse()
    return kid


def access_token_header(token: str) -> dict[str, Any]:
    """Return the unverified header of an access token (RFC 9068). Raises TokenRefused.

    A refresh token is signed as well, but has another type. Critical extensions (RFC 7515 §4.1.11)
    are not supported.
    """
    header = _segment(token, 0)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != "at+jwt":
        _refuse()
    if "crit" in header or "b64" in header:
        _refuse()
    return header


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of a token whose signature is not verified. Raises TokenRefused."""
    return _segment(token, 1)


def read_signed(
    token: str, key: PyJWK, *, algorithm: str, issuer: str, audience: str
) -> AccessToken:
    """Verify the signature and read all claims but the times. Raises TokenRefused."""
    try:
        payload = _jws.decode_complete(token, key, algorithms=[algorithm])["payload"]
    except (PyJWTError, ValueError, TypeError) as exc:
        raise TokenRefused("token_invalid") from exc
    return read_claims(_strict_object(payload), issuer=issuer, audience=audience)


def read_claims(payload: Mapping[str, Any], *, issuer: str, audience: str) -> AccessToken:
    """Read the claims of an access token. Raises TokenRefused."""
    found_audience = payload.get("aud")
    audiences = found_audience if isinstance(found_audience, list) else [found_audience]
    if payload.get("iss") != issuer or audience not in audiences:
        _refuse()
    _text(payload, "jti")
    return AccessToken(
        subject=_text(payload, "sub"),
        session_id=_text(payload, "sid"),
        client_id=_text(payload, "client_id") if "client_id" in payload else None,
        key_id=_text(payload, "key_id") if "key_id" in payload else None,
        roles=_texts(payload, "roles"),
        permissions=_permissions(payload),
        issued_at=_seconds(payload, "iat"),
        not_before=_seconds(payload, "nbf"),
        expires_at=_seconds(payload, "exp"),
        authenticated_at=_seconds(payload, "auth_time") if "auth_time" in payload else None,
        acr=_text(payload, "acr") if "acr" in payload else None,
        claims=MappingProxyType(dict(payload)),
    )


def _refuse() -> NoReturn:
    raise TokenRefused("token_invalid")


def _segment(token: str, position: int) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_LENGTH or not _COMPACT_FORM.fullmatch(token):
        _refuse()
    segment = token.split(".")[position]
    try:
        padded = segment + "=" * (-len(segment) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError as exc:
        raise TokenRefused("token_invalid") from exc
    return _strict_object(data)


def _strict_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises TokenRefused if parsers could read it differently."""
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=lambda _: _refuse()
        )
    except (ValueError, RecursionError) as exc:
        raise TokenRefused("token_invalid") from exc
    if not isinstance(found, dict):
        _refuse()
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse()
    return found


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        _refuse()
    return value


def _texts(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = payload.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _refuse()
    return tuple(value)


def _seconds(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= MAX_TIMESTAMP:
        _refuse()
    return value


def _permissions(payload: Mapping[str, Any]) -> Permissions | None:
    """Return the permissions, or None if the token omits them."""
    if "permissions_omitted" not in payload:
        return Permissions(_texts(payload, "permissions"))
    if payload["permissions_omitted"] is not True or "permissions" in payload:
        _refuse()
    return None
