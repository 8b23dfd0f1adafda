"""Whether a token is valid, and whether its session is live."""

from typing import Protocol
from uuid import UUID

from userapi.authentication.refusals import TokenInvalid, TokenRevoked
from userapi.authentication.token_claims import AccessClaims, RefreshClaims
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.sessions.status import LiveSession, LiveSessions


class SessionReference(Protocol):
    """Names a session at one version: the claims of a token, or the cookie of a browser."""

    @property
    def user_id(self) -> UUID: ...

    @property
    def session_id(self) -> UUID: ...

    @property
    def session_version(self) -> int: ...


class TokenStatus:
    """Verifies tokens and looks up their sessions."""

    def __init__(
        self, *, access_tokens: AccessTokens, refresh_tokens: RefreshTokens, live: LiveSessions
    ) -> None:
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._live = live

    def verify_access(self, token: str) -> AccessClaims:
        """Return the claims of an access token. Its session may have ended.

        Raises TokenInvalid, TokenExpired.
        """
        return self._access_tokens.verify(token)

    def verify_either(self, token: str) -> AccessClaims | RefreshClaims:
        """Return the claims of a token of either kind. Raises TokenInvalid, TokenExpired."""
        if self._refresh_tokens.looks_like_refresh_token(token):
            return self._refresh_tokens.verify(token)
        return self._access_tokens.verify(token)

    def require_live(self, reference: SessionReference, *, reply: object = None) -> LiveSession:
        """Return the live session of a token or cookie. Raises TokenRevoked, TokenInvalid.

        `reply` is that of Redis, if the caller has looked the session up there already.
        """
        live = self._live.find(
            reference.session_id,
            user_id=reference.user_id,
            session_version=reference.session_version,
            reply=reply,
        )
        if live is None:
            raise TokenRevoked()
        if live.user_id != reference.user_id:
            raise TokenInvalid()
        if live.session_version != reference.session_version:
            raise TokenRevoked()
        return live
