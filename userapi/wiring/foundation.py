"""What all other services are built on: time, records, mails, encryption, metrics."""

from dataclasses import dataclass

from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.events.outbox import Outbox
from userapi.infrastructure.encryption import EncryptionKeys
from userapi.mail.queue import MailQueue
from userapi.metrics import Metrics
from userapi.recorder import Recorder
from userapi.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """The settings and the services that need no other service."""

    settings: Settings
    clock: Clock
    audit: AuditTrail
    encryption: EncryptionKeys
    mails: MailQueue
    metrics: Metrics
    outbox: Outbox
    recorder: Recorder


def build_foundation(settings: Settings, clock: Clock) -> Foundation:
    """Build the foundation."""
    audit, outbox = AuditTrail(clock), Outbox(clock)
    return Foundation(
        settings=settings,
        clock=clock,
        audit=audit,
        encryption=EncryptionKeys(
            settings.encryption_key, previous=settings.encryption_key_previous
        ),
        mails=MailQueue(clock),
        metrics=Metrics(),
        outbox=outbox,
        recorder=Recorder(audit=audit, outbox=outbox, clock=clock),
    )
