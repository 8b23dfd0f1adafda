"""Asking for a mail: a row in the open transaction, sent afterwards by the worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, text

from userapi.clock import Clock
from userapi.infrastructure.database import (
    new_id,
    require_transaction,
    table_of,
)
from userapi.mail.models import MailKind, OutgoingMail

NOTIFY_CHANNEL = "userapi_mail"

_table = table_of(OutgoingMail)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets a mail: an address, and the user whose it is."""

    address: str
    user_id: UUID | None = None


class MailQueue:
    """Takes requests for mails. Nothing is sent, and no token made, inside a request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def ask(
        self,
        kind: MailKind,
        *,
        recipient: str,
        user_id: UUID | None = None,
        data: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Add a mail to the open transaction and wake the worker when it commits."""
        self.ask_all(
            kind,
            [Recipient(recipient, user_id)],
            data=data,
            correlation_id=correlation_id,
        )

    def ask_all(
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
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text(f"NOTIFY {NOTIFY_CHANNEL}"))

    def cancel(self, user_id: UUID, *kinds: MailKind) -> None:
        """Take mails of these kinds to a user back, as far as they are not sent yet."""
        require_transaction().execute(
            delete(_table).where(
                _table.c.user_id == user_id, _table.c.kind.in_(kinds), _table.c.sent_at.is_(None)
            )
        )
