"""All services, for the web and the worker, which use every group."""

from dataclasses import dataclass
from typing import Any

from flask import Flask

from userapi.infrastructure import database
from userapi.wiring.accounts import AccountServices
from userapi.wiring.audit import AuditServices
from userapi.wiring.authentication import AuthenticationServices
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.factor_listing import FactorListServices
from userapi.wiring.factors import FactorServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.groups import EXTENSION, ServiceGroups
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


@dataclass(frozen=True, kw_only=True)
class Services(
    Foundation,
    MetricServices,
    SecretServices,
    KeyServices,
    SealServices,
    SessionServices,
    DirectoryServices,
    SearchServices,
    PasswordServices,
    AccountServices,
    ImportServices,
    TokenServices,
    MachineServices,
    FactorServices,
    FactorListServices,
    PasskeyServices,
    AuthenticationServices,
    AuditServices,
    VerificationServices,
    MailServices,
    OperationServices,
    StatisticsServices,
):
    """All services that views and the worker call."""


def add_services(app: Flask) -> Services:
    """Build every service of an application, unless that is done.

    Connects to nothing. Raises SettingsError for unusable keys.
    """
    added: Services | None = app.extensions.get("userapi")
    if added is not None:
        return added
    services = _build_services(app.extensions[EXTENSION])
    services.access_tokens.configure(app)
    app.extensions["userapi"] = services
    with app.app_context():
        services.metrics.watch_pool(database.db.engine)
    return services


def _build_services(groups: ServiceGroups) -> Services:
    services: dict[str, Any] = {}
    for group in (
        groups.foundation,
        groups.metrics,
        groups.secrets,
        groups.keys,
        groups.seals,
        groups.sessions,
        groups.directory,
        groups.search,
        groups.passwords,
        groups.accounts,
        groups.imports,
        groups.tokens,
        groups.machines,
        groups.factors,
        groups.factor_listing,
        groups.passkeys,
        groups.authentication,
        groups.audit,
        groups.verification,
        groups.mail,
        groups.operations,
        groups.statistics,
    ):
        services |= vars(group)
    return Services(**services)
