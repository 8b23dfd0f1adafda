"""Operation: health, metrics, statistics, the audit log, and the tasks of the worker."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.audit.pruning import AuditPruning
from userapi.audit.reading import AuditReader
from userapi.audit.seal_keys import SealKeys, seal_keys
from userapi.audit.seals import AuditSeals
from userapi.audit.verification import AuditVerification
from userapi.cleanup import CleanUp
from userapi.clock import Clock
from userapi.events.expiry import EventExpiry
from userapi.health import Health
from userapi.mail.mailer import FileMailer, Mailer, MailServer, SmtpMailer
from userapi.mail.messages import Messages
from userapi.metrics import DatabaseCollector
from userapi.passwords.mail_delivery import MailDelivery
from userapi.settings import Settings
from userapi.statistics import Statistics
from userapi.wiring.factors import FactorServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class OperationServices:
    """The services for operators and the worker."""

    audit_pruning: AuditPruning
    audit_reader: AuditReader
    audit_seal_keys: SealKeys
    audit_seals: AuditSeals
    audit_verification: AuditVerification
    clean_up: CleanUp
    database_metrics: DatabaseCollector
    health: Health
    mail_delivery: MailDelivery
    mail_server: MailServer | None
    statistics: Statistics


def build_operations(
    foundation: Foundation,
    passwords: PasswordServices,
    sessions: SessionServices,
    factors: FactorServices,
) -> OperationServices:
    """Build the services for operators and the worker."""
    settings, clock, audit = foundation.settings, foundation.clock, foundation.audit
    keys = seal_keys(
        settings.audit_seal_key,
        previous=settings.audit_seal_key_previous,
        encryption_keys=(settings.encryption_key, *settings.encryption_key_previous),
        secret_key=settings.secret_key,
    )
    seals = AuditSeals(clock=clock, keys=keys, trail=audit)
    verification = AuditVerification(keys=keys)
    health = Health(
        service_name=settings.app_name,
        clock=clock,
        peppers=passwords.peppers,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        rabbitmq_url=settings.rabbitmq_url,
        tolerated_skew_seconds=settings.clock_skew_seconds,
    )
    mail_server = _mail_server(settings)
    return OperationServices(
        audit_pruning=AuditPruning(
            clock=clock, trail=audit, seals=seals, verification=verification
        ),
        audit_reader=AuditReader(trail=audit, cursor_key=settings.secret_key),
        audit_seal_keys=keys,
        audit_seals=seals,
        audit_verification=verification,
        clean_up=CleanUp(clock, expiry=_event_expiry(settings, clock)),
        database_metrics=DatabaseCollector(
            clock=clock,
            health=health,
            sessions=sessions.sessions,
            seals=seals,
            peppers=passwords.peppers,
            secrets=factors.totp_secret_rotation,
        ),
        health=health,
        mail_delivery=MailDelivery(
            clock=clock,
            mailer=_mailer(mail_server, settings, clock),
            messages=Messages(service_name=settings.app_name, base_url=settings.public_base_url),
            one_time_tokens=passwords.one_time_tokens,
        ),
        mail_server=mail_server,
        statistics=Statistics(clock=clock, sessions=sessions.sessions, mfa=factors.mfa_figures),
    )


def _mail_server(settings: Settings) -> MailServer | None:
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        ca_file=settings.tls_ca_file,
        user=settings.smtp_user,
        password=settings.smtp_password,
    )


def _mailer(server: MailServer | None, settings: Settings, clock: Clock) -> Mailer:
    """Return the mailer for the server; without a server, mails are written to files."""
    if server is None:
        return FileMailer(settings.mail_folder, sender=settings.mail_from, clock=clock)
    return SmtpMailer(server, sender=settings.mail_from, clock=clock)


def _event_expiry(settings: Settings, clock: Clock) -> EventExpiry | None:
    """Return what deletes unsent events; None with a broker, which will receive all of them."""
    if settings.rabbitmq_url:
        return None
    return EventExpiry(clock=clock, kept=timedelta(days=settings.outbox_retention_days))
