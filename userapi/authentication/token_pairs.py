"""Issues the access token and the refresh token of a session."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from userapi.accounts.views import UserView
from userapi.authentication.tokens import AccessGrant, AccessTokens, RefreshTokens
from userapi.clock import Clock
from userapi.factors.enforcement import MfaEnforcement
from userapi.roles.service import Roles
from userapi.sessions.authentication_level import Authentication


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """What a client receives from a log-in, a refresh or a password change."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int
    user_id: UUID
    session_id: UUID
    session_version: int
    user: UserView | None = None


class CurrentSession(Protocol):
    """A session at its current generation and version."""

    @property
    def id(self) -> UUID: ...

    @property
    def user_id(self) -> UUID: ...

    @property
    def generation(self) -> int: ...

    @property
    def version(self) -> int: ...

    @property
    def rotated_at(self) -> datetime: ...

    @property
    def expires_at(self) -> datetime: ...

    @property
    def authentication(self) -> Authentication: ...


class TokenOwner(Protocol):
    """The user of a session, as far as tokens describe them."""

    @property
    def roles(self) -> Sequence[str]: ...

    @property
    def must_change_password(self) -> bool: ...

    @property
    def mfa_enabled(self) -> bool: ...


class TokenPairs:
    """Issues token pairs."""

    def __init__(
        self,
        *,
        clock: Clock,
        roles: Roles,
        enforcement: MfaEnforcement,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
    ) -> None:
        self._clock = clock
        self._roles = roles
        self._enforcement = enforcement
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens

    def issue(
        self,
        session: CurrentSession,
        owner: TokenOwner,
        *,
        catalogue_version: int | None = None,
        user: UserView | None = None,
    ) -> TokenPair:
        """Return a pair for a session of `owner`; `user` is part of the reply to a log-in.

        A caller that has read the version of the role catalogue passes it, which saves a query.
        """
        graph = self._roles.graph(catalogue_version)
        is_restricted = self._enforcement.is_restricted(session.authentication, owner, graph)
        role_names = () if is_restricted else owner.roles
        access = self._access_tokens.issue(
            AccessGrant(
                user_id=session.user_id,
                session_id=session.id,
                session_version=session.version,
                roles=tuple(sorted(role_names)),
                permissions=tuple(graph.effective(role_names)),
                authentication=session.authentication,
            )
        )
        refresh = self._refresh_tokens.issue(
            user_id=session.user_id,
            session_id=session.id,
            session_version=session.version,
            generation=session.generation,
            rotated_at=session.rotated_at,
            expires_at=session.expires_at,
        )
        now = self._clock.now()
        return TokenPair(
            access_token=access.token,
            refresh_token=refresh.token,
            expires_in=access.lifetime_seconds,
            refresh_expires_in=_seconds(refresh.expires_at - now),
            user_id=session.user_id,
            session_id=session.id,
            session_version=session.version,
            user=user,
        )


def _seconds(span: timedelta) -> int:
    return max(0, math.ceil(span.total_seconds()))
