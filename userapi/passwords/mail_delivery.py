"""Mail delivery: the worker sends mails that are due.

No transaction is open while the worker talks to a mail server. It claims a mail for one minute,
creates and commits its token, sends the mail, and marks it as sent. If a worker stops in between,
the mail is sent again later with a new token, which voids the earlier one: delivery is at least
once.

An unavailable server does not count as an attempt: the mail is released unchanged, and this process
pauses. A mail that the server rejects temporarily is retried without end at growing intervals. Only
a permanent rejection parks it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import column, delete, select, table, update

from userapi.clock import Clock
from userapi.infrastructure.database import table_of, transaction
from userapi.infrastructure.work_queues import claim_next
from userapi.languages import Reader, reader_of
from userapi.mail.mailer import Mailer, MailRefused, MailUnavailable, Send, ServerUnavailable
from userapi.mail.messages import Messages
from userapi.mail.models import MailKind, OutgoingMail
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import MAIL_FOR, OneTimeTokens

log = structlog.get_logger(__name__)

CLAIMED_FOR = timedelta(minutes=1)
FIRST_RETRY = timedelta(seconds=5)
MAX_RETRY = timedelta(minutes=30)
# The longest pause after an unavailable server; pauses double up to it.
MAX_PAUSE = timedelta(seconds=30)
# For a mail that the service itself cannot render.
MAX_RENDERING_ATTEMPTS = 20
MAX_ERROR_LENGTH = 500
# So many temporary rejections in a row count as an outage.
MAX_REJECTIONS_IN_A_ROW = 10
# The first attempt of an outage is logged, then every 30th.
ATTEMPTS_PER_LOG_LINE = 30

PATHS = {
    TokenPurpose.EMAIL_CHANGE: "/console/verify-email",
    TokenPurpose.EMAIL_VERIFICATION: "/console/verify-email",
    TokenPurpose.INVITATION: "/console/set-password",
    TokenPurpose.PASSWORD_RESET: "/console/set-password",
}
PURPOSE_OF = {kind: purpose for purpose, kind in MAIL_FOR.items()}

_mails = table_of(OutgoingMail)
# The model of users is in a layer above; these are the columns that matter here.
_users = table(
    "users",
    column("id", _mails.c.user_id.type),
    *map(column, ("username", "email", "status", "locale", "timezone")),
)
# Sent to an address that is not, or soon no longer, the address of the account.
_TO_THE_GIVEN_ADDRESS = {
    MailKind.EMAIL_CHANGE_CONFIRM,
    MailKind.EMAIL_CHANGE_NOTICE,
    MailKind.EMAIL_CHANGED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    """A mail that this worker has claimed; `claimed_until` identifies the claim."""

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
        self._rejections_in_a_row = 0
        self._paused_until: datetime | None = None

    def deliver_due(self, limit: int = 50) -> int:
        """Send at most `limit` mails that are due, oldest first; return how many were sent.

        A rejected mail does not delay others. An unavailable server ends the batch and starts a
        pause, in which no mail is claimed.
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
                    self._release(mail, exc)
                    self._pause(exc)
                    break
        return sent

    def _deliver(self, mail: _Claimed, send: Send) -> bool:
        """Send a claimed mail; return whether it was sent. Raises ServerUnavailable."""
        contents = self._contents(mail)
        if contents is None:
            return False
        recipient, reader, data = contents
        try:
            send(self._messages.write(mail.kind, recipient=recipient, reader=reader, data=data))
        except ServerUnavailable:
            raise
        except MailRefused as exc:
            self._end_outage()
            self._park(mail, exc)
            return False
        except MailUnavailable as exc:
            self._postpone(mail, _error_text(exc))
            self._rejections_in_a_row += 1
            if self._rejections_in_a_row >= MAX_REJECTIONS_IN_A_ROW:
                self._pause(exc)
            log.warning("mail.not_sent", mail_id=str(mail.id), error=str(exc))
            return False
        except Exception as exc:  # An error of this mail must not stop the delivery of others.
            self._postpone(mail, type(exc).__name__, max_attempts=MAX_RENDERING_ATTEMPTS)
            log.error("mail.not_written", mail_id=str(mail.id), error=type(exc).__name__)
            return False
        self._end_outage()
        with transaction() as session:
            # Whichever worker holds the claim by now: the mail is sent. The address of a sent mail
            # is not kept.
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
        """Claim the oldest mail that is due, so that no other worker sends it for a minute."""
        now = self._clock.now()
        claimed_until = now + CLAIMED_FOR
        with transaction():
            mail = claim_next(
                _mails,
                _mails.c.sent_at.is_(None),
                _mails.c.parked_at.is_(None),
                _mails.c.next_attempt_at <= now,
                # Other kinds are of a newer release, whose worker sends them.
                _mails.c.kind.in_([str(kind) for kind in MailKind]),
                order_by=[_mails.c.next_attempt_at],
                values={"next_attempt_at": claimed_until},
            )
        if mail is None:
            return None
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

    def _contents(self, mail: _Claimed) -> tuple[str, Reader, dict[str, Any]] | None:
        """Return the address, the reader and the data of a claimed mail, with a new token.

        None if the mail was cancelled or claimed by another worker, or if its user may not have it;
        then it is deleted. Locks the user before the mail, in the order of all other code: the
        reverse order would deadlock.
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
            still_claimed = session.execute(
                select(_mails.c.id)
                .where(
                    _mails.c.id == mail.id,
                    _mails.c.sent_at.is_(None),
                    _mails.c.next_attempt_at == mail.claimed_until,
                )
                .with_for_update()
            ).one_or_none()
            if still_claimed is None:
                return None
            if kind in PURPOSE_OF and (user is None or user.status == "suspended"):
                session.execute(delete(_mails).where(_mails.c.id == mail.id))
                return None
            recipient: str = mail.recipient
            if user is not None and kind not in _TO_THE_GIVEN_ADDRESS:
                # The typed address may only look like the address of the account.
                recipient = user.email
            data: dict[str, Any] = {**mail.data, "username": user.username if user else ""}
            if kind in PURPOSE_OF and mail.user_id is not None:
                data |= self._token(PURPOSE_OF[kind], mail.user_id, recipient)
            reader = reader_of(user.locale, user.timezone) if user else reader_of(None, None)
        return recipient, reader, data

    def _token(self, purpose: TokenPurpose, user_id: UUID, email: str) -> dict[str, str]:
        text = self._one_time_tokens.open(purpose, user_id=user_id, email=email)
        return {"token": text, "link": self._messages.link(PATHS[purpose], text)}

    def _release(self, mail: _Claimed, reason: ServerUnavailable) -> None:
        """Release a mail because the server is unavailable. It stays the first in the queue.

        If the connection broke during this mail, the mail may be the cause: it is postponed.
        """
        if reason.broke_off:
            self._postpone(mail, _error_text(reason))
            return
        self._change_claimed(mail, next_attempt_at=mail.due_at, last_error=_error_text(reason))

    def _postpone(self, mail: _Claimed, error: str, *, max_attempts: int | None = None) -> None:
        """Schedule the next attempt of a mail; park it after `max_attempts`."""
        now = self._clock.now()
        attempts = mail.attempts + 1
        wait = min(FIRST_RETRY * 2 ** min(attempts - 1, 20), MAX_RETRY)
        self._change_claimed(
            mail,
            attempts=attempts,
            next_attempt_at=now + wait,
            parked_at=now if max_attempts is not None and attempts >= max_attempts else None,
            last_error=error,
        )

    def _park(self, mail: _Claimed, reason: MailRefused) -> None:
        """Stop retrying a mail until an operator retries or discards it."""
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
        """Send nothing for a while; each pause of an outage is longer."""
        self._outages += 1
        pause = min(FIRST_RETRY * 2 ** min(self._outages - 1, 20), MAX_PAUSE)
        self._paused_until = self._clock.now() + pause
        if self._outages == 1 or self._outages % ATTEMPTS_PER_LOG_LINE == 0:
            log.warning("mail.server_away", error=str(reason), attempts=self._outages)

    def _end_outage(self) -> None:
        if self._outages:
            log.info("mail.server_back", attempts=self._outages)
        self._outages, self._rejections_in_a_row, self._paused_until = 0, 0, None


def _error_text(error: MailRefused | MailUnavailable) -> str:
    return f"{error}: {error.reply}"[:MAX_ERROR_LENGTH] if error.reply else str(error)
