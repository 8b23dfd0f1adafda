"""The groups of services, each built when it is used first.

A command uses few of them, and importing a group takes up to 0.2 s. Therefore each is imported by
the property that builds it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from userapi.clock import Clock, SystemClock
from userapi.settings import Settings

if TYPE_CHECKING:
    from userapi.wiring.accounts import AccountServices
    from userapi.wiring.audit import AuditServices
    from userapi.wiring.authentication import AuthenticationServices
    from userapi.wiring.directory import DirectoryServices
    from userapi.wiring.factor_listing import FactorListServices
    from userapi.wiring.factors import FactorServices
    from userapi.wiring.foundation import Foundation
    from userapi.wiring.imports import ImportServices
    from userapi.wiring.keys import KeyServices
    from userapi.wiring.machines import MachineServices
    from userapi.wiring.mail import MailServices
    from userapi.wiring.metrics import MetricServices
    from userapi.wiring.operations import OperationServices
    from userapi.wiring.passkeys import PasskeyServices
    from userapi.wiring.passwords import PasswordServices
    from userapi.wiring.seals import SealServices
    from userapi.wiring.search import SearchServices
    from userapi.wiring.secrets import SecretServices
    from userapi.wiring.sessions import SessionServices
    from userapi.wiring.statistics import StatisticsServices
    from userapi.wiring.tokens import TokenServices
    from userapi.wiring.verification import VerificationServices

# The name of the groups among the extensions of the application.
EXTENSION = "userapi.groups"


class ServiceGroups:
    """The groups of services of one application. Connects to nothing."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()

    @cached_property
    def foundation(self) -> Foundation:
        """Return what all other services are built on."""
        from userapi.wiring.foundation import build_foundation

        return build_foundation(self.settings, self.clock)

    @cached_property
    def metrics(self) -> MetricServices:
        """Return the metrics."""
        from userapi.wiring.metrics import build_metrics

        return build_metrics()

    @cached_property
    def secrets(self) -> SecretServices:
        """Return the services that hold secrets of the settings."""
        from userapi.wiring.secrets import build_secrets

        return build_secrets(self.settings)

    @cached_property
    def keys(self) -> KeyServices:
        """Return the services about keys. Raises SettingsError for unusable keys."""
        from userapi.wiring.keys import build_keys

        return build_keys(self.settings, self.clock)

    @cached_property
    def seals(self) -> SealServices:
        """Return the services that seal the audit log."""
        from userapi.wiring.seals import build_seals

        return build_seals(self.foundation)

    @cached_property
    def sessions(self) -> SessionServices:
        """Return the services about sessions and the rate of requests."""
        from userapi.wiring.sessions import build_sessions

        return build_sessions(self.foundation)

    @cached_property
    def directory(self) -> DirectoryServices:
        """Return the services that find users and roles."""
        from userapi.wiring.directory import build_directory

        return build_directory(self.foundation, self.sessions)

    @cached_property
    def search(self) -> SearchServices:
        """Return the services that list users."""
        from userapi.wiring.search import build_search

        return build_search(self.settings, self.clock)

    @cached_property
    def passwords(self) -> PasswordServices:
        """Return the services about passwords."""
        from userapi.wiring.passwords import build_passwords

        return build_passwords(self.foundation, self.secrets, self.metrics)

    @cached_property
    def accounts(self) -> AccountServices:
        """Return the services about accounts and roles."""
        from userapi.wiring.accounts import build_accounts

        return build_accounts(
            self.foundation,
            self.metrics,
            self.sessions,
            self.directory,
            self.search,
            self.passwords,
        )

    @cached_property
    def imports(self) -> ImportServices:
        """Return the services that import users."""
        from userapi.wiring.imports import build_imports

        return build_imports(self.foundation, self.secrets, self.directory, self.passwords)

    @cached_property
    def tokens(self) -> TokenServices:
        """Return the services about tokens."""
        from userapi.wiring.tokens import build_tokens

        return build_tokens(self.foundation, self.keys, self.sessions, self.directory)

    @cached_property
    def machines(self) -> MachineServices:
        """Return the services about service accounts, API keys and client tokens."""
        from userapi.wiring.machines import build_machines

        return build_machines(
            self.foundation, self.metrics, self.sessions, self.directory, self.tokens
        )

    @cached_property
    def factors(self) -> FactorServices:
        """Return the services about second factors."""
        from userapi.wiring.factors import build_factors

        return build_factors(
            self.foundation,
            self.secrets,
            self.metrics,
            self.sessions,
            self.directory,
            self.passwords,
            self.accounts,
        )

    @cached_property
    def factor_listing(self) -> FactorListServices:
        """Return the services that list second factors."""
        from userapi.wiring.factor_listing import build_factor_listing

        return build_factor_listing(self.settings, self.secrets, self.directory)

    @cached_property
    def passkeys(self) -> PasskeyServices:
        """Return the services about passkeys."""
        from userapi.wiring.passkeys import build_passkeys

        return build_passkeys(self.foundation, self.secrets, self.metrics)

    @cached_property
    def authentication(self) -> AuthenticationServices:
        """Return the services about authentication."""
        from userapi.wiring.authentication import build_authentication

        return build_authentication(
            self.foundation,
            self.secrets,
            self.metrics,
            self.sessions,
            self.directory,
            self.passwords,
            self.accounts,
            self.tokens,
            self.factors,
            self.factor_listing,
            self.passkeys,
            self.machines,
        )

    @cached_property
    def audit(self) -> AuditServices:
        """Return the services that read the audit log."""
        from userapi.wiring.audit import build_audit

        return build_audit(self.foundation)

    @cached_property
    def verification(self) -> VerificationServices:
        """Return the services that check the seals of the audit log."""
        from userapi.wiring.verification import build_verification

        return build_verification(self.foundation, self.seals)

    @cached_property
    def mail(self) -> MailServices:
        """Return the services that send mails."""
        from userapi.wiring.mail import build_mail

        return build_mail(self.foundation)

    @cached_property
    def operations(self) -> OperationServices:
        """Return the services for operators and the worker."""
        from userapi.wiring.operations import build_operations

        return build_operations(self.foundation, self.secrets, self.sessions, self.seals)

    @cached_property
    def statistics(self) -> StatisticsServices:
        """Return the services that count users and their activity."""
        from userapi.wiring.statistics import build_statistics

        return build_statistics(self.foundation, self.sessions, self.directory)
