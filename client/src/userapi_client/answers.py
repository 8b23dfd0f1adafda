"""Reads the responses of /auth/verify and /auth/introspect about a token."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import Any, Literal

from userapi_client.claims import AccessToken, moment
from userapi_client.errors import TokenRefused, Unavailable
from userapi_client.permissions import Permissions
from userapi_client.principal import Principal

UNUSABLE = "The response of the User Management Service is invalid."
# A redirect, a missing path or refused credentials of this program say nothing about the token.
REFUSALS = {
    401: ("token_invalid", "token_expired", "token_revoked"),
    403: ("network_not_allowed", "password_change_required", "mfa_enrollment_required"),
}
# The codes for a session that may only change its password, or only add a second factor.
RESTRICTIONS = ("password_change_required", "mfa_enrollment_required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A caller as the service returns them, and the networks that their key is bound to."""

    principal: Principal
    networks: tuple[str, ...] | None = None

    def require_network(self, address: str | None) -> None:
        """Raise TokenRefused if a bound key is used from another address, or from an unknown one.

        An IPv4 address that is mapped into IPv6 counts as the IPv4 address.
        """
        if self.networks is None:
            return
        found = _address(address)
        if found is None or not any(found in _network(text) for text in self.networks):
            raise TokenRefused("network_not_allowed", 403)


def parse_object(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a response. Raises Unavailable."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Unavailable(detail=UNUSABLE) from exc
    if not isinstance(found, dict):
        raise Unavailable(detail=UNUSABLE)
    return found


def refusal(status: int, body: bytes) -> TokenRefused | None:
    """Return why /auth/verify rejects the token, or None if the response has another reason."""
    if status not in REFUSALS:
        return None
    code = parse_object(body).get("code")
    if isinstance(code, str) and code in REFUSALS[status]:
        return TokenRefused(code, status)
    return None


def verified(answer: Mapping[str, Any], signed: AccessToken | None) -> Answer:
    """Read a 200 of /auth/verify. Raises Unavailable if the response is invalid."""
    read = _Reader(answer)
    if answer.get("active") is not True:
        raise Unavailable(detail=UNUSABLE)
    kind = read.actor_type()
    principal = Principal(
        id=read.text("user_id"),
        type=kind,
        username=None,
        roles=read.texts("roles"),
        permissions=Permissions(read.texts("permissions")),
        session_id=read.optional_text("session_id"),
        key_id=read.optional_text("key_id"),
        authenticated_at=read.time("authenticated_at"),
        acr=read.optional_text("acr"),
        expires_at=read.time("expires_at"),
        checked="service",
        claims=_claims(answer, signed),
    )
    _require_same_caller(principal, signed)
    return Answer(principal=principal, networks=read.networks())


def introspected(
    answer: Mapping[str, Any], signed: AccessToken | None, *, issuer: str, audience: str
) -> Answer:
    """Read a 200 of /auth/introspect. Raises TokenRefused, Unavailable."""
    read = _Reader(answer)
    active = answer.get("active")
    if active is False:
        raise TokenRefused("token_revoked")
    if active is not True:
        raise Unavailable(detail=UNUSABLE)
    token_type = answer.get("token_type")
    # A refresh token is active, too, and grants no access.
    if token_type not in ("access", "api_key"):
        raise TokenRefused("token_invalid")
    if answer.get("iss") != issuer or answer.get("aud") not in (audience, [audience]):
        raise TokenRefused("token_invalid")
    kind = read.actor_type()
    key_id = read.text("sid") if token_type == "api_key" else read.optional_text("key_id")
    principal = Principal(
        id=read.text("sub"),
        type=kind,
        username=read.optional_text("username"),
        roles=read.texts("roles"),
        permissions=Permissions((read.optional_text("scope") or "").split()),
        session_id=read.text("sid") if key_id is None else None,
        key_id=key_id,
        authenticated_at=moment(read.seconds("auth_time")),
        acr=read.optional_text("acr"),
        expires_at=moment(read.seconds("exp")),
        checked="service",
        claims=_claims(answer, signed),
    )
    _require_same_caller(principal, signed)
    return Answer(principal=principal, networks=read.networks())


def powerless(signed: AccessToken) -> Answer:
    """Return a session that is restricted: it has no roles and no permissions."""
    principal = replace(signed.principal(Permissions()), roles=(), checked="service")
    return Answer(principal=principal)


class _Reader:
    """Reads members of a response. Raises Unavailable for one of another type."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer

    def text(self, name: str) -> str:
        value = self._answer.get(name)
        if not isinstance(value, str) or not value:
            raise Unavailable(detail=UNUSABLE)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._answer.get(name) in (None, "") else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._answer.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Unavailable(detail=UNUSABLE)
        return tuple(value)

    def seconds(self, name: str) -> int | None:
        value = self._answer.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < 10**11):
            raise Unavailable(detail=UNUSABLE)
        return value

    def time(self, name: str) -> datetime | None:
        text = self.optional_text(name)
        try:
            found = None if text is None else datetime.fromisoformat(text)
        except ValueError as exc:
            raise Unavailable(detail=UNUSABLE) from exc
        if found is not None and found.tzinfo is None:
            raise Unavailable(detail=UNUSABLE)
        return found

    def actor_type(self) -> Literal["user", "service"]:
        # A service without this member has only users as callers.
        found = self._answer.get("actor_type", "user")
        if found == "user":
            return "user"
        if found == "service":
            return "service"
        raise Unavailable(detail=UNUSABLE)

    def networks(self) -> tuple[str, ...] | None:
        if self._answer.get("allowed_networks") is None:
            return None
        found = self.texts("allowed_networks")
        try:
            for text in found:
                _network(text)
        except ValueError as exc:
            raise Unavailable(detail=UNUSABLE) from exc
        return found


def _claims(answer: Mapping[str, Any], signed: AccessToken | None) -> Mapping[str, Any]:
    return MappingProxyType(dict(answer)) if signed is None else signed.claims


def _require_same_caller(principal: Principal, signed: AccessToken | None) -> None:
    if signed is not None and principal.id != signed.subject:
        raise Unavailable(detail=UNUSABLE)


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _network(text: str) -> Any:
    return ip_network(text)
