"""Introspection: whether a token is active, for services that cannot verify it (RFC 7662)."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from userapi.authentication.token_claims import RefreshClaims
from userapi.authentication.token_status import TokenStatus
from userapi.errors import Unauthenticated
from userapi.factors.enforcement import MfaEnforcement
from userapi.infrastructure.database import reading, table_of
from userapi.roles.service import Roles
from userapi.sessions.models import UserSession

_sessions = table_of(UserSession)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveToken:
    """A token that is valid now (RFC 7662 §2.2)."""

    active: bool = True
    sub: UUID
    sid: UUID
    username: str
    scope: str
    roles: tuple[str, ...]
    token_type: str
    exp: int
    iat: int
    iss: str
    aud: str
    jti: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveAccessToken(ActiveToken):
    """An access token that is valid now, with its authentication (RFC 9470 §6.2)."""

    acr: str
    amr: tuple[str, ...]
    auth_time: int


class Introspection:
    """Describes tokens. A token is active here if and only if the endpoints accept it."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        token_status: TokenStatus,
        roles: Roles,
        enforcement: MfaEnforcement,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._token_status = token_status
        self._roles = roles
        self._enforcement = enforcement

    def inspect(self, token: str) -> ActiveToken | None:
        """Return the description of an active token, or None for any other text."""
        try:
            claims = self._token_status.verify_either(token)
            live = self._token_status.require_live(claims)
        except Unauthenticated:
            return None
        if isinstance(claims, RefreshClaims) and not _is_current(claims):
            return None
        graph = self._roles.graph(live.catalogue_version)
        is_restricted = self._enforcement.is_restricted(live.authentication, live, graph)
        roles = () if is_restricted else live.roles
        described: dict[str, Any] = {
            "sub": live.user_id,
            "sid": live.session_id,
            "username": live.username,
            "scope": " ".join(graph.effective(roles)),
            "roles": roles,
            "exp": claims.expires_at,
            "iat": claims.issued_at,
            "iss": self._issuer,
            "aud": self._audience,
            "jti": claims.jti,
        }
        if isinstance(claims, RefreshClaims):
            return ActiveToken(token_type="refresh", **described)
        return ActiveAccessToken(
            token_type="access",
            acr=live.authentication.acr,
            amr=live.authentication.amr,
            auth_time=int(live.authentication.authenticated_at.timestamp()),
            **described,
        )


def _is_current(claims: RefreshClaims) -> bool:
    """Return whether a refresh token belongs to the current generation of its session."""
    query = select(_sessions.c.generation).where(_sessions.c.id == claims.session_id)
    with reading() as connection:
        generation: int | None = connection.execute(query).scalar_one_or_none()
    return generation == claims.generation
