"""Sending the mails that are due: the worker's side of the queue.

No transaction is open while a server is spoken to. A mail is claimed for a minute; its token is
made and committed; it is sent, and marked. A worker that dies in between leaves a mail that is sent
again later, with a new token that makes the one before void: at least once.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, Table, column, delete, select, table, update

from userapi.clock import Clock
from userapi.database import transaction
from userapi.mail.mailer import Mailer, MailRefused, MailUnavailable, Send, ServerUnavailable
from userapi.mail.messages import Messages
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
_TO_THE_GIVEN_ADDRESS = {
    MailKind.EMAIL_CHANGE_CONFIRM,
    MailKind.EMAIL_CHANGE_NOTICE,
    MailKind.EMAIL_CHANGED,
}


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

        A mail that cannot be sent waits longer each time and is parked in the end; it holds up no
        other. Only a server that is away ends the batch: the others would wait for it in vain.
        """
        sent = 0
        with self._mailer.batch() as send:
            for _ in range(limit):
                mail = self._claim()
                if mail is None:
                    break
                try:
                    sent += self._deliver(mail, send)
                except ServerUnavailable as exc:
                    self._put_off(mail, exc)
                    break
        return sent

    def _deliver(self, mail: Row[Any], send: Send) -> bool:
        """Send a claimed mail; tell whether it was sent. Raises ServerUnavailable."""
        contents = self._contents(mail)
        if contents is None:
            return False
        recipient, data = contents
        try:
            send(self._messages.write(MailKind(mail.kind), recipient=recipient, data=data))
        except ServerUnavailable:
            raise
        except MailRefused as exc:
            self._mark(mail, parked_at=self._clock.now(), last_error=str(exc))
            log.warning("mail.refused", mail_id=str(mail.id), error=str(exc))
            return False
        except MailUnavailable as exc:
            self._put_off(mail, exc)
            return False
        except Exception as exc:  # Whatever is wrong with this mail, the others are sent.
            self._put_off(mail, MailUnavailable(type(exc).__name__))
            return False
        self._mark(mail, sent_at=self._clock.now(), last_error=None)
        return True

    def _claim(self) -> Row[Any] | None:
        """Take the next mail for a minute, so that no other worker does."""
        now = self._clock.now()
        with transaction() as session:
            mail = session.execute(
                select(_mails)
                .where(
                    _mails.c.sent_at.is_(None),
                    _mails.c.parked_at.is_(None),
                    _mails.c.next_attempt_at <= now,
                    # Others are of a newer release, whose worker sends them.
                    _mails.c.kind.in_([str(kind) for kind in MailKind]),
                )
                .order_by(_mails.c.next_attempt_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if mail is not None:
                session.execute(
                    update(_mails)
                    .where(_mails.c.id == mail.id)
                    .values(attempts=mail.attempts + 1, next_attempt_at=now + CLAIMED_FOR)
                )
        return mail

    def _contents(self, mail: Row[Any]) -> tuple[str, dict[str, Any]] | None:
        """Return the address of a claimed mail and what it says, with a token made for it.

        None for a mail that was taken back, or by another worker, or that has lost its reason: that
        one goes. Locks the user before the mail, as all others do; the other way round they would
        wait for each other.
        """
        kind = MailKind(mail.kind)
        with transaction() as session:
            user = None
            if mail.user_id is not None:
                user = session.execute(
                    select(_users)
                    .where(_users.c.id == mail.user_id)
                    .with_for_update(read=True, key_share=True)
                ).one_or_none()
            still_ours = session.execute(
                select(_mails.c.id)
                .where(
                    _mails.c.id == mail.id,
                    _mails.c.sent_at.is_(None),
                    _mails.c.attempts == mail.attempts + 1,
                )
                .with_for_update()
            ).one_or_none()
            if still_ours is None:
                return None
            if kind in PURPOSE_OF and (user is None or user.status == "suspended"):
                session.execute(delete(_mails).where(_mails.c.id == mail.id))
                return None
            recipient: str = mail.recipient
            if user is not None and kind not in _TO_THE_GIVEN_ADDRESS:
                # What was typed may only look like the address that the account has.
                recipient = user.email
            data: dict[str, Any] = {**mail.data, "username": user.username if user else ""}
            if kind in PURPOSE_OF:
                data |= self._token(PURPOSE_OF[kind], mail.user_id, recipient)
        return recipient, data

    def _token(self, purpose: TokenPurpose, user_id: UUID, email: str) -> dict[str, str]:
        text = self._one_time_tokens.open(purpose, user_id=user_id, email=email)
        return {"token": text, "link": self._messages.link(PATHS[purpose], text)}

    def _put_off(self, mail: Row[Any], reason: MailUnavailable) -> None:
        """Let a mail wait for its next attempt; after the last one it is parked."""
        now = self._clock.now()
        attempts = mail.attempts + 1
        wait = min(FIRST_RETRY * 2 ** min(attempts - 1, 20), LONGEST_RETRY)
        values: dict[str, Any] = {"next_attempt_at": now + wait, "last_error": str(reason)}
        if attempts >= ATTEMPTS:
            values["parked_at"] = now
        self._mark(mail, **values)
        log.warning("mail.not_sent", mail_id=str(mail.id), error=str(reason), attempts=attempts)

    def _mark(self, mail: Row[Any], **values: Any) -> None:
        with transaction() as session:
            session.execute(update(_mails).where(_mails.c.id == mail.id).values(**values))
