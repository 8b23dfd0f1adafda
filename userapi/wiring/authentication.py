"""Authentication: signing keys, tokens, and the use cases of people who log in."""

from dataclasses import dataclass

from userapi.authentication.introspection import Introspection
from userapi.authentication.keys import KeyRing
from userapi.authentication.recovery import Recovery
from userapi.authentication.service import Authentication
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.wiring.accounts import AccountServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class AuthenticationServices:
    """The services about authentication."""

    access_tokens: AccessTokens
    authentication: Authentication
    introspection: Introspection
    keys: KeyRing
    recovery: Recovery


def build_authentication(
    foundation: Foundation,
    passwords: PasswordServices,
    sessions: SessionServices,
    accounts: AccountServices,
) -> AuthenticationServices:
    """Build the services about authentication. Raises SettingsError for unusable keys."""
    settings, clock = foundation.settings, foundation.clock
    keys = KeyRing(settings, clock)
    access_tokens = AccessTokens(settings, clock, keys)
    authentication = Authentication(
        settings=settings,
        clock=clock,
        audit=foundation.audit,
        outbox=foundation.outbox,
        roles=accounts.roles,
        sessions=sessions.sessions,
        live=sessions.live_sessions,
        lockout=passwords.lockout,
        hasher=passwords.hasher,
        peppers=passwords.peppers,
        policy=passwords.policy,
        one_time_tokens=passwords.one_time_tokens,
        mails=foundation.mails,
        accounts=accounts.accounts,
        access_tokens=access_tokens,
        refresh_tokens=RefreshTokens(settings, clock),
        count_lock=foundation.metrics.lockouts.inc,
    )
    return AuthenticationServices(
        access_tokens=access_tokens,
        authentication=authentication,
        introspection=Introspection(
            settings=settings, authentication=authentication, roles=accounts.roles
        ),
        keys=keys,
        recovery=Recovery(
            audit=foundation.audit,
            accounts=accounts.accounts,
            authentication=authentication,
            hasher=passwords.hasher,
            mails=foundation.mails,
            one_time_tokens=passwords.one_time_tokens,
            policy=passwords.policy,
            roles=accounts.roles,
            sessions=sessions.sessions,
        ),
    )
