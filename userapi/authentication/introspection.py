"""Introspection: whether a token is active, for services that cannot verify it (RFC 7662)."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from userapi.authentication.token_claims import AccessClaims, RefreshClaims
from userapi.authentication.token_status import TokenStatus
from userapi.errors import Unauthenticated
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


class Introspection:
    """Describes tokens. A token is active here if and only if the endpoints accept it."""

    def __init__(
        self, *, issuer: str, audience: str, token_status: TokenStatus, roles: Roles
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._token_status = token_status
        self._roles = roles

    def inspect(self, token: str) -> ActiveToken | None:
        """Return the description of an active token, or None for any other text."""
        try:
            claims = self._token_status.verify_either(token)
            live = self._token_status.require_live(claims)
        except Unauthenticated:
            return None
        if isinstance(claims, RefreshClaims) and not _is_current(claims):
            return None
        # Until a required password change, the user has no permissions here or elsewhere.
        roles = () if live.must_change_password else live.roles
        permissions = self._roles.graph(live.catalogue_version).effective(roles)
        return ActiveToken(
            sub=live.user_id,
            sid=live.session_id,
            username=live.username,
            scope=" ".join(permissions),
            roles=roles,
            token_type="access" if isinstance(claims, AccessClaims) else "refresh",
            exp=claims.expires_at,
            iat=claims.issued_at,
            iss=self._issuer,
            aud=self._audience,
            jti=claims.jti,
        )


def _is_current(claims: RefreshClaims) -> bool:
    """Return whether a refresh token belongs to the current generation of its session."""
    query = select(_sessions.c.generation).where(_sessions.c.id == claims.session_id)
    with reading() as connection:
        generation: int | None = connection.execute(query).scalar_one_or_none()
    return generation == claims.generation
