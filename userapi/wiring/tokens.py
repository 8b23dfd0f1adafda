"""Tokens: their issue, and their status."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.authentication.introspection import Introspection
from userapi.authentication.keys import KeyRing
from userapi.authentication.token_pairs import TokenPairs
from userapi.authentication.token_status import TokenStatus
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.clock import Clock
from userapi.settings import Settings
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.keys import KeyServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class TokenServices:
    """The services about tokens."""

    access_tokens: AccessTokens
    introspection: Introspection
    refresh_tokens: RefreshTokens
    token_pairs: TokenPairs
    token_status: TokenStatus


def build_tokens(
    foundation: Foundation,
    keys: KeyServices,
    sessions: SessionServices,
    directory: DirectoryServices,
) -> TokenServices:
    """Build the services about tokens."""
    settings, clock = foundation.settings, foundation.clock
    access_tokens = build_access_tokens(settings, clock, keys.keys)
    refresh_tokens = build_refresh_tokens(settings, clock)
    enforcement = directory.mfa_enforcement
    token_status = TokenStatus(
        access_tokens=access_tokens, refresh_tokens=refresh_tokens, live=sessions.live_sessions
    )
    return TokenServices(
        access_tokens=access_tokens,
        introspection=Introspection(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            token_status=token_status,
            roles=directory.roles,
            enforcement=enforcement,
        ),
        refresh_tokens=refresh_tokens,
        token_pairs=TokenPairs(
            clock=clock,
            roles=directory.roles,
            enforcement=enforcement,
            access_tokens=access_tokens,
            refresh_tokens=refresh_tokens,
        ),
        token_status=token_status,
    )


def build_access_tokens(settings: Settings, clock: Clock, keys: KeyRing) -> AccessTokens:
    """Return the service that issues and verifies access tokens."""
    return AccessTokens(
        clock=clock,
        keys=keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime=timedelta(minutes=settings.jwt_access_token_expire_minutes),
        max_bytes=settings.jwt_max_bytes,
    )


def build_refresh_tokens(settings: Settings, clock: Clock) -> RefreshTokens:
    """Return the service that issues and verifies refresh tokens."""
    return RefreshTokens(
        clock=clock,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        secret_key=settings.secret_key,
    )
