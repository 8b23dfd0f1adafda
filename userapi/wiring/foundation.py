"""What all other services are built on: settings, time, records, mails."""

from dataclasses import dataclass

from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.events.outbox import Outbox
from userapi.mail.queue import MailQueue
from userapi.recorder import Recorder
from userapi.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """The settings and the services that need no other service."""

    settings: Settings
    clock: Clock
    audit: AuditTrail
    mails: MailQueue
    outbox: Outbox
    recorder: Recorder


def build_foundation(settings: Settings, clock: Clock) -> Foundation:
    """Build the foundation."""
    audit, outbox = AuditTrail(clock), Outbox(clock)
    return Foundation(
        settings=settings,
        clock=clock,
        audit=audit,
        mails=MailQueue(clock),
        outbox=outbox,
        recorder=Recorder(audit=audit, outbox=outbox, clock=clock),
    )
