"""Sending the mails that are due: the worker's side of the queue.

No transaction is open while a server is spoken to. A mail is claimed for a minute; its token is
made and committed; it is sent, and marked. A worker that dies in between leaves a mail that is sent
again later, with a new token that makes the one before void: at least once.

A server that is away is no failed attempt of a mail. The mail is given back as it was, and this
process leaves the server alone for a while. A mail that the server refuses for now is tried again
for ever, less and less often. Only a refusal for good parks it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import column, delete, select, table, update

from userapi.clock import Clock
from userapi.infrastructure.database import (
    table_of,
    transaction,
)
from userapi.mail.mailer import Mailer, MailRefused, MailUnavailable, Send, ServerUnavailable
from userapi.mail.messages import Messages
from userapi.mail.models import MailKind, OutgoingMail
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import MAIL_FOR, OneTimeTokens

log = structlog.get_logger(__name__)

CLAIMED_FOR = timedelta(minutes=1)
FIRST_RETRY = timedelta(seconds=5)
MAX_RETRY = timedelta(minutes=30)
# How long a server that is away is left alone: doubled each time.
MAX_PAUSE = timedelta(seconds=30)
# For a mail that the service itself cannot write.
ATTEMPTS_TO_WRITE = 20
MAX_ERROR = 500
# A server that refuses so many mails in a row for now is left alone, too.
REFUSED_IN_A_ROW = 10
# An outage is logged when it begins and then now and then.
OUTAGES_PER_LOG_LINE = 30

PATHS = {
    TokenPurpose.EMAIL_CHANGE: "/console/verify-email",
    TokenPurpose.EMAIL_VERIFICATION: "/console/verify-email",
    TokenPurpose.INVITATION: "/console/set-password",
    TokenPurpose.PASSWORD_RESET: "/console/set-password",
}
PURPOSE_OF = {kind: purpose for purpose, kind in MAIL_FOR.items()}

_mails = table_of(OutgoingMail)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    """A mail that this worker has for itself until `claimed_until`, which identifies the claim."""

    id: UUID
    kind: MailKind
    recipient: str
    user_id: UUID | None
    data: dict[str, Any]
    attempts: int
    due_at: datetime
    claimed_until: datetime


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
        self._outages = 0
        self._refused_in_a_row = 0
        self._paused_until: datetime | None = None

    def deliver_due(self, limit: int = 50) -> int:
        """Send at most so many mails that are due, the oldest first; return how many were sent.

        A mail that is refused holds up no other. A server that is away ends the batch, and none is
        begun until a pause is over.
        """
        sent = 0
        with self._mailer.batch() as send:
            for _ in range(limit):
                mail = None if self._is_pausing() else self._claim()
                if mail is None:
                    break
                try:
                    sent += self._deliver(mail, send)
                except ServerUnavailable as exc:
                    self._give_back(mail, exc)
                    self._pause(exc)
                    break
        return sent

    def _deliver(self, mail: _Claimed, send: Send) -> bool:
        """Send a claimed mail; tell whether it was sent. Raises ServerUnavailable."""
        contents = self._contents(mail)
        if contents is None:
            return False
        recipient, data = contents
        try:
            send(self._messages.write(mail.kind, recipient=recipient, data=data))
        except ServerUnavailable:
            raise
        except MailRefused as exc:
            self._end_outage()
            self._park(mail, exc)
            return False
        except MailUnavailable as exc:
            self._put_off(mail, _error_text(exc))
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= REFUSED_IN_A_ROW:
                self._pause(exc)
            log.warning("mail.not_sent", mail_id=str(mail.id), error=str(exc))
            return False
        except Exception as exc:  # Whatever is wrong with this mail, the others are sent.
            self._put_off(mail, type(exc).__name__, at_most=ATTEMPTS_TO_WRITE)
            log.error("mail.not_written", mail_id=str(mail.id), error=type(exc).__name__)
            return False
        self._end_outage()
        with transaction() as session:
            # Whoever holds the claim now: it is sent. No address is kept of a mail that is sent.
            session.execute(
                update(_mails)
                .where(_mails.c.id == mail.id)
                .values(
                    sent_at=self._clock.now(),
                    attempts=mail.attempts + 1,
                    parked_at=None,
                    last_error=None,
                    recipient="",
                    data={},
                )
            )
        return True

    def _claim(self) -> _Claimed | None:
        """Take the oldest mail that is due for a minute, so that no other worker does."""
        now = self._clock.now()
        claimed_until = now + CLAIMED_FOR
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
            if mail is None:
                return None
            session.execute(
                update(_mails).where(_mails.c.id == mail.id).values(next_attempt_at=claimed_until)
            )
        return _Claimed(
            id=mail.id,
            kind=MailKind(mail.kind),
            recipient=mail.recipient,
            user_id=mail.user_id,
            data=mail.data,
            attempts=mail.attempts,
            due_at=mail.next_attempt_at,
            claimed_until=claimed_until,
        )

    def _contents(self, mail: _Claimed) -> tuple[str, dict[str, Any]] | None:
        """Return the address of a claimed mail and what it says, with a token made for it.

        None for a mail that was taken back, or by another worker, or that has lost its reason: that
        one goes. Locks the user before the mail, as all others do; the other way round they would
        wait for each other.
        """
        kind = mail.kind
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
                    _mails.c.next_attempt_at == mail.claimed_until,
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
            if kind in PURPOSE_OF and mail.user_id is not None:
                data |= self._token(PURPOSE_OF[kind], mail.user_id, recipient)
        return recipient, data

    def _token(self, purpose: TokenPurpose, user_id: UUID, email: str) -> dict[str, str]:
        text = self._one_time_tokens.open(purpose, user_id=user_id, email=email)
        return {"token": text, "link": self._messages.link(PATHS[purpose], text)}

    def _give_back(self, mail: _Claimed, reason: ServerUnavailable) -> None:
        """Let go of a mail that was not refused: the server is away. It stays the first in turn.

        Except where the server failed in the middle of it, which this mail may be the cause of: it
        lets others go first.
        """
        if reason.broke_off:
            self._put_off(mail, _error_text(reason))
            return
        self._change_claimed(mail, next_attempt_at=mail.due_at, last_error=_error_text(reason))

    def _put_off(self, mail: _Claimed, error: str, *, at_most: int | None = None) -> None:
        """Let a mail wait for its next attempt; after `at_most` attempts it is parked."""
        now = self._clock.now()
        attempts = mail.attempts + 1
        wait = min(FIRST_RETRY * 2 ** min(attempts - 1, 20), MAX_RETRY)
        self._change_claimed(
            mail,
            attempts=attempts,
            next_attempt_at=now + wait,
            parked_at=now if at_most is not None and attempts >= at_most else None,
            last_error=error,
        )

    def _park(self, mail: _Claimed, reason: MailRefused) -> None:
        """Give a mail up, until an operator retries or discards it."""
        self._change_claimed(
            mail,
            attempts=mail.attempts + 1,
            parked_at=self._clock.now(),
            last_error=_error_text(reason),
        )
        log.warning("mail.refused", mail_id=str(mail.id), error=str(reason))

    def _change_claimed(self, mail: _Claimed, **values: Any) -> None:
        with transaction() as session:
            session.execute(
                update(_mails)
                .where(_mails.c.id == mail.id, _mails.c.next_attempt_at == mail.claimed_until)
                .values(**values)
            )

    def _is_pausing(self) -> bool:
        return self._paused_until is not None and self._clock.now() < self._paused_until

    def _pause(self, reason: MailUnavailable) -> None:
        """Leave the server alone for a while, longer each time."""
        self._outages += 1
        pause = min(FIRST_RETRY * 2 ** min(self._outages - 1, 20), MAX_PAUSE)
        self._paused_until = self._clock.now() + pause
        if self._outages == 1 or self._outages % OUTAGES_PER_LOG_LINE == 0:
            log.warning("mail.server_away", error=str(reason), attempts=self._outages)

    def _end_outage(self) -> None:
        if self._outages:
            log.info("mail.server_back", attempts=self._outages)
        self._outages, self._refused_in_a_row, self._paused_until = 0, 0, None


def _error_text(error: MailRefused | MailUnavailable | ServerUnavailable) -> str:
    return f"{error}: {error.reply}"[:MAX_ERROR] if error.reply else str(error)
