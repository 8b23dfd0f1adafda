"""What a token is worth, for services that cannot judge it themselves (RFC 7662)."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from userapi.authentication.service import Authentication
from userapi.authentication.token_claims import AccessClaims, RefreshClaims
from userapi.errors import Unauthenticated
from userapi.infrastructure.database import (
    reading,
    table_of,
)
from userapi.roles.service import Roles
from userapi.sessions.models import UserSession
from userapi.settings import Settings

_sessions = table_of(UserSession)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveToken:
    """A token that is good at this moment (RFC 7662 §2.2)."""

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
    """Judges tokens by the validators and the live sessions that every endpoint uses."""

    def __init__(
        self,
        *,
        settings: Settings,
        authentication: Authentication,
        roles: Roles,
    ) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._authentication = authentication
        self._roles = roles

    def inspect(self, token: str) -> ActiveToken | None:
        """Return what a good token says; None for every other text."""
        try:
            claims = self._authentication.inspect(token)
            live = self._authentication.require_live(claims)
        except Unauthenticated:
            return None
        if isinstance(claims, RefreshClaims) and not self._is_present(claims):
            return None
        # Whoever must change the password may do nothing else, here or elsewhere.
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

    def _is_present(self, claims: RefreshClaims) -> bool:
        """Tell whether a refresh token is of the session's present generation."""
        query = select(_sessions.c.generation).where(_sessions.c.id == claims.session_id)
        with reading() as connection:
            generation: int | None = connection.execute(query).scalar_one_or_none()
        return generation == claims.generation
