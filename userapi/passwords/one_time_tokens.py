"""One-time tokens: links in mails that set a password or verify an address.

A request only queues a mail. The worker generates the 256 random bits of the token when it sends
the mail, so the token is only in the mail; the table has its SHA-256.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from userapi.actor import Actor
from userapi.clock import Clock
from userapi.errors import Malformed
from userapi.infrastructure.database import (
    new_id,
    reading,
    require_transaction,
    table_of,
)
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue, Recipient
from userapi.passwords.models import OneTimeToken, TokenPurpose

LIFETIME = timedelta(minutes=60)
INVITATION_LIFETIME = timedelta(days=7)
TOKEN_BYTES = 32
NOBODY = UUID(int=0)

_table = table_of(OneTimeToken)

MAIL_FOR = {
    TokenPurpose.EMAIL_CHANGE: MailKind.EMAIL_CHANGE_CONFIRM,
    TokenPurpose.EMAIL_VERIFICATION: MailKind.VERIFY_EMAIL,
    TokenPurpose.INVITATION: MailKind.INVITATION,
    TokenPurpose.PASSWORD_RESET: MailKind.PASSWORD_RESET,
}


class InvalidToken(Malformed):
    """The token is unknown, used, voided or expired."""

    code = "invalid_token"
    title = "This link is no longer valid. Request a new one."


class OneTimeTokens:
    """Issues, redeems and voids one-time tokens in the transaction of the caller."""

    def __init__(self, *, clock: Clock, mails: MailQueue) -> None:
        self._clock = clock
        self._mails = mails

    def send(
        self, purpose: TokenPurpose, *, user_id: UUID | None, email: str, actor: Actor
    ) -> None:
        """Queue a mail with a new token, and void earlier tokens of the same purpose.

        Without a user the same statements run without effect, so that the response time does not
        reveal whether the user exists.
        """
        kind = MAIL_FOR[purpose]
        self._void(user_id or NOBODY, purpose)
        self._mails.cancel(user_id or NOBODY, kind)
        self._mails.enqueue(
            kind, recipient=email, user_id=user_id, correlation_id=actor.correlation_id
        )

    def send_all(
        self, purpose: TokenPurpose, recipients: Mapping[UUID, str], *, actor: Actor
    ) -> None:
        """Queue such a mail for each of several new users, with one statement."""
        if recipients:
            self._mails.enqueue_all(
                MAIL_FOR[purpose],
                [Recipient(email, user_id) for user_id, email in recipients.items()],
                correlation_id=actor.correlation_id,
            )

    def open(self, purpose: TokenPurpose, *, user_id: UUID, email: str) -> str:
        """Generate a token, void earlier ones of its purpose, and return its text.

        The worker calls this just before it sends the mail. The text is not stored.
        """
        session = require_transaction()
        now = self._clock.now()
        self._void(user_id, purpose)
        text = secrets.token_urlsafe(TOKEN_BYTES)
        invitation = purpose is TokenPurpose.INVITATION
        session.add(
            OneTimeToken(
                id=new_id(),
                user_id=user_id,
                purpose=purpose,
                token_hash=digest(text),
                email=email,
                created_at=now,
                expires_at=now + (INVITATION_LIFETIME if invitation else LIFETIME),
            )
        )
        session.flush()
        return text

    def owner_of(self, text: str, *purposes: TokenPurpose) -> UUID:
        """Return the user of an open token, which stays usable. Raises InvalidToken."""
        query = select(_table.c.user_id).where(
            _table.c.token_hash == digest(text),
            _table.c.purpose.in_(purposes),
            *self._is_open(self._clock.now()),
        )
        with reading() as connection:
            user_id: UUID | None = connection.execute(query).scalar_one_or_none()
        if user_id is None:
            raise InvalidToken()
        return user_id

    def redeem(self, text: str, *purposes: TokenPurpose) -> OneTimeToken:
        """Mark the token with this text as used and return it. Raises InvalidToken.

        One statement: of concurrent calls with the same token, one succeeds.
        """
        session = require_transaction()
        now = self._clock.now()
        token_id = session.execute(
            update(_table)
            .where(
                _table.c.token_hash == digest(text),
                _table.c.purpose.in_(purposes),
                *self._is_open(now),
            )
            .values(used_at=now)
            .returning(_table.c.id)
        ).scalar_one_or_none()
        if token_id is None:
            raise InvalidToken()
        return session.get_one(OneTimeToken, token_id)

    def void_all(self, user_id: UUID) -> None:
        """Void every open token of the user, and cancel mails with tokens that are not sent."""
        self._void(user_id)
        self._mails.cancel(user_id, *MAIL_FOR.values())

    def _void(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        statement = update(_table).where(
            _table.c.user_id == user_id, _table.c.used_at.is_(None), _table.c.voided_at.is_(None)
        )
        if purpose is not None:
            statement = statement.where(_table.c.purpose == purpose)
        require_transaction().execute(statement.values(voided_at=self._clock.now()))

    def _is_open(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        return (
            _table.c.used_at.is_(None),
            _table.c.voided_at.is_(None),
            _table.c.expires_at > now,
        )


def digest(text: str) -> str:
    """Return the hash that is stored of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
