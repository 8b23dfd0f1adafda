"""Settings → Services: the only room that picks implementations and connects them.

One module per group of services. Each builds its group from the settings and the groups below it.
"""

from dataclasses import dataclass
from typing import Any

from userapi.clock import Clock, SystemClock
from userapi.settings import Settings
from userapi.wiring.accounts import AccountServices, build_accounts
from userapi.wiring.authentication import AuthenticationServices, build_authentication
from userapi.wiring.factors import FactorServices, build_factors
from userapi.wiring.foundation import Foundation, build_foundation
from userapi.wiring.operations import OperationServices, build_operations
from userapi.wiring.passkeys import PasskeyServices, build_passkeys
from userapi.wiring.passwords import PasswordServices, build_passwords
from userapi.wiring.sessions import SessionServices, build_sessions
from userapi.wiring.tokens import TokenServices, build_tokens


@dataclass(frozen=True, kw_only=True)
class Services(
    Foundation,
    PasswordServices,
    SessionServices,
    AccountServices,
    TokenServices,
    FactorServices,
    PasskeyServices,
    AuthenticationServices,
    OperationServices,
):
    """All services that views, commands and the worker call."""


def build_services(settings: Settings, clock: Clock | None = None) -> Services:
    """Build every service once. Connects to nothing. Raises SettingsError for unusable keys."""
    foundation = build_foundation(settings, clock or SystemClock())
    passwords = build_passwords(foundation)
    sessions = build_sessions(foundation)
    accounts = build_accounts(foundation, passwords, sessions)
    tokens = build_tokens(foundation, sessions, accounts)
    factors = build_factors(foundation, passwords, sessions, accounts, tokens)
    passkeys = build_passkeys(foundation)
    authentication = build_authentication(
        foundation, passwords, sessions, accounts, tokens, factors, passkeys
    )
    operations = build_operations(foundation, passwords, sessions, factors)
    groups = (foundation, passwords, sessions, accounts, tokens, factors, passkeys)
    services: dict[str, Any] = {}
    for group in (*groups, authentication, operations):
        services |= vars(group)
    return Services(**services)
