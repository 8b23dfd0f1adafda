"""What every use case with a change writes: audit rows and events, with one clock."""

from dataclasses import dataclass
from datetime import datetime

from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.events.outbox import Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """The audit trail, the outbox and the clock, which use cases need together."""

    audit: AuditTrail
    outbox: Outbox
    clock: Clock

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return self.clock.now()
