"""Asking for a mail: a row in the open transaction, sent afterwards by the worker."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Table, delete, text

from userapi.clock import Clock
from userapi.database import new_id, require_transaction
from userapi.mail.models import MailKind, OutgoingMail

NOTIFY_CHANNEL = "userapi_mail"

_table: Table = OutgoingMail.__table__  # type: ignore[assignment]


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
        session = require_transaction()
        now = self._clock.now()
        session.add(
            OutgoingMail(
                id=new_id(),
                kind=kind,
                recipient=recipient,
                user_id=user_id,
                data=dict(data or {}),
                correlation_id=correlation_id,
                created_at=now,
                next_attempt_at=now,
            )
        )
        session.flush()
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text(f"NOTIFY {NOTIFY_CHANNEL}"))

    def cancel(self, user_id: UUID, *kinds: MailKind) -> None:
        """Take mails of these kinds to a user back, as far as they are not sent yet."""
        require_transaction().execute(
            delete(_table).where(
                _table.c.user_id == user_id, _table.c.kind.in_(kinds), _table.c.sent_at.is_(None)
            )
        )
