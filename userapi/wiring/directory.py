"""Users and roles as they are read, and the steps that every change of a user consists of."""

from dataclasses import dataclass

from userapi.accounts.service import Accounts
from userapi.factors.enforcement import MfaEnforcement
from userapi.lockout.service import Lockout
from userapi.roles.service import Roles
from userapi.wiring.foundation import Foundation
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class DirectoryServices:
    """The services that find users and roles."""

    accounts: Accounts
    lockout: Lockout
    mfa_enforcement: MfaEnforcement
    roles: Roles


def build_directory(foundation: Foundation, sessions: SessionServices) -> DirectoryServices:
    """Build the services that find users and roles."""
    settings, clock = foundation.settings, foundation.clock
    roles = Roles()
    enforcement = MfaEnforcement(settings.mfa_required_roles)
    lockout = Lockout(
        clock,
        threshold=settings.lockout_threshold,
        base_seconds=settings.lockout_base_seconds,
        max_seconds=settings.lockout_max_seconds,
        secret_key=settings.secret_key,
    )
    return DirectoryServices(
        accounts=Accounts(
            recorder=foundation.recorder,
            roles=roles,
            live=sessions.live_sessions,
            lockout=lockout,
        ),
        lockout=lockout,
        mfa_enforcement=enforcement,
        roles=roles,
    )
