"""Adding mails to the queue in the open transaction. The worker sends them afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert

from userapi.clock import Clock
from userapi.infrastructure.database import new_id, notify, require_transaction, table_of
from userapi.mail.models import MailKind, OutgoingMail

NOTIFY_CHANNEL = "userapi_mail"

_table = table_of(OutgoingMail)


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient of a mail: an address, and its user."""

    address: str
    user_id: UUID | None = None


class MailQueue:
    """Adds mails to the queue. No request sends a mail or generates its token."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def enqueue(
        self,
        kind: MailKind,
        *,
        recipient: str,
        user_id: UUID | None = None,
        data: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Add a mail to the open transaction and wake the worker when it commits."""
        self.enqueue_all(
            kind,
            [Recipient(recipient, user_id)],
            data=data,
            correlation_id=correlation_id,
        )

    def enqueue_all(
        self,
        kind: MailKind,
        recipients: Sequence[Recipient],
        *,
        data: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Add a mail for each recipient to the open transaction by one statement."""
        session = require_transaction()
        now = self._clock.now()
        session.execute(
            insert(_table),
            [
                {
                    "id": new_id(),
                    "kind": kind,
                    "recipient": recipient.address,
                    "user_id": recipient.user_id,
                    "data": dict(data or {}),
                    "correlation_id": correlation_id,
                    "created_at": now,
                    "attempts": 0,
                    "next_attempt_at": now,
                }
                for recipient in recipients
            ],
        )
        notify(session, NOTIFY_CHANNEL)

    def cancel(self, user_id: UUID, *kinds: MailKind) -> None:
        """Delete the mails of these kinds to a user that are not sent yet."""
        require_transaction().execute(
            delete(_table).where(
                _table.c.user_id == user_id, _table.c.kind.in_(kinds), _table.c.sent_at.is_(None)
            )
        )
