"""Sending the mails that are due: the worker's side of the queue.

No transaction is open while a server is spoken to. A mail is claimed for a minute, its token made
and committed; then it is sent, and marked. A worker that dies in between leaves a mail that is sent
again later, with a new token that makes the one before void: at least once.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, Table, column, delete, select, table, update

from userapi.clock import Clock
from userapi.database import transaction
from userapi.mail.mailer import Mailer, MailRefused, MailUnavailable
from userapi.mail.messages import Message, Messages
from userapi.mail.models import MailKind, OutgoingMail
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import MAIL_FOR, OneTimeTokens

log = structlog.get_logger(__name__)

CLAIMED_FOR = timedelta(minutes=1)
FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=30)
ATTEMPTS = 20

PATHS = {
    TokenPurpose.EMAIL_CHANGE: "/console/verify-email",
    TokenPurpose.EMAIL_VERIFICATION: "/console/verify-email",
    TokenPurpose.INVITATION: "/console/set-password",
    TokenPurpose.PASSWORD_RESET: "/console/set-password",
}
PURPOSE_OF = {kind: purpose for purpose, kind in MAIL_FOR.items()}

_mails: Table = OutgoingMail.__table__  # type: ignore[assignment]
# The subject above owns the users' model; here only these columns of its table matter.
_users = table(
    "users",
    column("id", _mails.c.user_id.type),
    column("username"),
    column("email"),
    column("status"),
)
# These go to an address that the account does not have, or not for much longer.
_TO_THE_GIVEN_ADDRESS = {MailKind.EMAIL_CHANGE_CONFIRM, MailKind.EMAIL_CHANGE_NOTICE}


class MailDelivery:
    """Sends mails that are due."""

    def __init__(
        self,
        *,
        clock: Clock,
        mailer: Mailer,
        messages: Messages,
        one_time_tokens: OneTimeTokens,
    ) -> None:
        self._clock = clock
        self._mailer = mailer
        self._messages = messages
        self._one_time_tokens = one_time_tokens

    def deliver_due(self, limit: int = 50) -> int:
        """Send at most so many mails that are due; return how many were sent.

        A mail that cannot be sent waits longer each time and is parked in the end; none holds up
        the others for longer than its own time-outs.
        """
        sent = 0
        for _ in range(limit):
            claimed = self._claim()
            if claimed is None:
                break
            mail, message = claimed
            if message is not None and self._send(mail, message):
                sent += 1
        return sent

    def _claim(self) -> tuple[Row[Any], Message | None] | None:
        """Take the next mail and write it; a mail that has lost its reason is taken away."""
        now = self._clock.now()
        with transaction() as session:
            mail = session.execute(
                select(_mails)
                .where(
                    _mails.c.sent_at.is_(None),
                    _mails.c.parked_at.is_(None),
                    _mails.c.next_attempt_at <= now,
                )
                .order_by(_mails.c.next_attempt_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if mail is None:
                return None
            user = None
            if mail.user_id is not None:
                user = session.execute(
                    select(_users).where(_users.c.id == mail.user_id)
                ).one_or_none()
            kind = MailKind(mail.kind)
            if kind in PURPOSE_OF and (user is None or user.status == "suspended"):
                session.execute(delete(_mails).where(_mails.c.id == mail.id))
                return mail, None
            session.execute(
                update(_mails)
                .where(_mails.c.id == mail.id)
                .values(attempts=mail.attempts + 1, next_attempt_at=now + CLAIMED_FOR)
            )
            recipient = mail.recipient
            if user is not None and kind not in _TO_THE_GIVEN_ADDRESS:
                # What was typed may only look like the address that the account has.
                recipient = user.email
            data: dict[str, Any] = {**mail.data, "username": user.username if user else ""}
            if kind in PURPOSE_OF:
                data |= self._token(PURPOSE_OF[kind], mail.user_id, recipient)
        return mail, self._messages.write(kind, recipient=recipient, data=data)

    def _token(self, purpose: TokenPurpose, user_id: UUID, email: str) -> dict[str, str]:
        text = self._one_time_tokens.open(purpose, user_id=user_id, email=email)
        return {"token": text, "link": self._messages.link(PATHS[purpose], text)}

    def _send(self, mail: Row[Any], message: Message) -> bool:
        now = self._clock.now()
        values: dict[str, Any] = {"sent_at": now, "last_error": None}
        try:
            self._mailer.send(message)
        except MailRefused as exc:
            values = {"parked_at": now, "last_error": str(exc)}
        except MailUnavailable as exc:
            attempts = mail.attempts + 1
            wait = min(FIRST_RETRY * 2 ** min(attempts - 1, 20), LONGEST_RETRY)
            values = {"next_attempt_at": now + wait, "last_error": str(exc)}
            if attempts >= ATTEMPTS:
                values["parked_at"] = now
        if "sent_at" not in values:
            log.warning("mail.not_sent", mail_id=str(mail.id), error=values["last_error"])
        with transaction() as session:
            session.execute(update(_mails).where(_mails.c.id == mail.id).values(**values))
        return "sent_at" in values
