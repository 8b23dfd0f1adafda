"""Authentication: the use cases of people who log in."""

from dataclasses import dataclass

from userapi.authentication.introspection import Introspection
from userapi.authentication.recovery import Recovery
from userapi.authentication.service import Authentication
from userapi.wiring.accounts import AccountServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.sessions import SessionServices
from userapi.wiring.tokens import TokenServices


@dataclass(frozen=True, kw_only=True)
class AuthenticationServices:
    """The services about authentication."""

    authentication: Authentication
    introspection: Introspection
    recovery: Recovery


def build_authentication(
    foundation: Foundation,
    passwords: PasswordServices,
    sessions: SessionServices,
    accounts: AccountServices,
    tokens: TokenServices,
) -> AuthenticationServices:
    """Build the services about authentication."""
    settings, clock = foundation.settings, foundation.clock
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
        access_tokens=tokens.access_tokens,
        refresh_tokens=tokens.refresh_tokens,
        count_lock=foundation.metrics.lockouts.inc,
    )
    return AuthenticationServices(
        authentication=authentication,
        introspection=Introspection(
            settings=settings, authentication=authentication, roles=accounts.roles
        ),
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
