"""Tokens: the keys that sign them, their issue, and their status."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.authentication.introspection import Introspection
from userapi.authentication.key_folder import KeyFolder
from userapi.authentication.keys import KeyRing
from userapi.authentication.token_pairs import TokenPairs
from userapi.authentication.token_status import TokenStatus
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.clock import Clock
from userapi.factors.enforcement import MfaEnforcement
from userapi.settings import Settings
from userapi.wiring.accounts import AccountServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class TokenServices:
    """The services about tokens."""

    access_tokens: AccessTokens
    introspection: Introspection
    key_folder: KeyFolder
    keys: KeyRing
    mfa_enforcement: MfaEnforcement
    refresh_tokens: RefreshTokens
    token_pairs: TokenPairs
    token_status: TokenStatus


def build_tokens(
    foundation: Foundation, sessions: SessionServices, accounts: AccountServices
) -> TokenServices:
    """Build the services about tokens. Raises SettingsError for unusable keys."""
    settings, clock = foundation.settings, foundation.clock
    keys = build_key_ring(settings, clock)
    access_tokens = build_access_tokens(settings, clock, keys)
    refresh_tokens = build_refresh_tokens(settings, clock)
    enforcement = MfaEnforcement(settings.mfa_required_roles)
    token_status = TokenStatus(
        access_tokens=access_tokens, refresh_tokens=refresh_tokens, live=sessions.live_sessions
    )
    return TokenServices(
        access_tokens=access_tokens,
        introspection=Introspection(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            token_status=token_status,
            roles=accounts.roles,
            enforcement=enforcement,
        ),
        key_folder=build_key_folder(settings, clock),
        keys=keys,
        mfa_enforcement=enforcement,
        refresh_tokens=refresh_tokens,
        token_pairs=TokenPairs(
            clock=clock,
            roles=accounts.roles,
            enforcement=enforcement,
            access_tokens=access_tokens,
            refresh_tokens=refresh_tokens,
        ),
        token_status=token_status,
    )


def build_key_folder(settings: Settings, clock: Clock) -> KeyFolder:
    """Return the folder with the keys that sign access tokens."""
    return KeyFolder(
        settings.keys_folder,
        algorithm=settings.jwt_algorithm,
        token_lifetime=timedelta(minutes=settings.jwt_access_token_expire_minutes),
        clock=clock,
        signs=settings.jwt_private_key_file is None,
    )


def build_key_ring(settings: Settings, clock: Clock) -> KeyRing:
    """Return the keys of this process. Raises SettingsError for unusable keys."""
    return KeyRing(
        algorithm=settings.jwt_algorithm,
        secret=settings.jwt_secret_key,
        file=settings.jwt_private_key_file,
        folder=build_key_folder(settings, clock),
        generate_missing=settings.creates_signing_keys,
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
