"""The report of `flask doctor`: the findings of all subjects, in the order in which they print.

An invalid setting prevents the start. The report covers what the start does not check: settings
that do not fit together, servers that lack something, and problems that stay hidden until later.
"""

from collections.abc import Iterator
from functools import partial

from userapi.accounts.imports.batch_rotation import BatchRotation
from userapi.audit.seals import AuditSeals
from userapi.authentication.key_folder import KeyFolder
from userapi.authentication.keys import KeyRing
from userapi.clock import Clock
from userapi.diagnosis import (
    audit,
    configuration,
    database,
    imports,
    machines,
    mail,
    passkeys,
    passwords,
    rabbitmq,
    second_factors,
    signing_keys,
    stored_secrets,
    worker,
)
from userapi.diagnosis.checks import Status, run_checks
from userapi.diagnosis.findings import Finding, Level
from userapi.diagnosis.health_connection import HealthConnection
from userapi.factors.relying_party import RelyingParty
from userapi.factors.secret_rotation import SecretRotation
from userapi.mail.mailer import MailServer
from userapi.passwords.peppers import Peppers
from userapi.settings import Settings


def diagnose(
    settings: Settings,
    *,
    clock: Clock,
    keys: KeyRing,
    key_folder: KeyFolder,
    mail_server: MailServer | None,
    peppers: Peppers,
    seals: AuditSeals,
    secret_rotation: SecretRotation,
    batch_rotation: BatchRotation,
    relying_party: RelyingParty,
) -> Iterator[Finding]:
    """Yield the findings about the installation, subject by subject."""
    connections = HealthConnection(settings.database_url)
    check = partial(
        database.check,
        connections,
        clock=clock,
        peppers=peppers,
        tolerated_skew_seconds=settings.clock_skew_seconds,
    )
    state = run_checks({"database": check})["database"]
    yield from configuration.findings(settings)
    yield from passkeys.findings(settings, relying_party)
    yield from machines.issuer_findings(settings)
    yield from stored_secrets.findings(settings)
    yield from signing_keys.findings(settings, clock=clock, keys=keys, folder=key_folder)
    yield from database.findings(settings, state, clock=clock)
    yield from _redis_findings(settings.redis_url)
    yield from rabbitmq.findings(
        _publisher(settings),
        settings.rabbitmq_url,
        exchange=settings.rabbitmq_exchange,
        kept_days=settings.outbox_retention_days,
    )
    if state.status is Status.UP:
        yield from worker.findings(settings, state, clock=clock)
        yield from mail.unsent_findings(clock)
        yield from passwords.findings(state, peppers)
        yield from audit.findings(seals)
        yield from second_factors.findings(settings, secret_rotation)
        yield from imports.findings(batch_rotation)
        yield from passkeys.foreign_findings(relying_party)
        yield from machines.key_findings(clock)
    yield from mail.findings(settings, mail_server)


def _redis_findings(url: str) -> Iterator[Finding]:
    if not url:
        yield Finding(
            "redis",
            Level.OK,
            "not configured: sessions are checked in the database, limits count per process",
        )
        return
    # Loads redis-py, which an installation without Redis does not need.
    from userapi.diagnosis import redis_server

    yield from redis_server.findings(url)


def _publisher(settings: Settings) -> rabbitmq.Publisher | None:
    if not settings.rabbitmq_url:
        return None
    # Loads Kombu, which an installation without RabbitMQ does not need.
    from userapi.events.rabbitmq import AmqpPublisher

    return AmqpPublisher(settings.rabbitmq_url, exchange=settings.rabbitmq_exchange)
