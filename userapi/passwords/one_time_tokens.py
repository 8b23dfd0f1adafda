"""One-time tokens: links in mails that set a password or prove an address.

A request only asks for a token. Its 256 random bits are made when the mail is sent, so the text is
in the mail and nowhere else; the table holds its SHA-256.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Update, insert, select, update

from userapi.actor import Actor
from userapi.clock import Clock
from userapi.database import new_id, require_transaction
from userapi.errors import Malformed
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue, Recipient
from userapi.passwords.models import OneTimeToken, TokenPurpose

LIFETIME = timedelta(minutes=60)
INVITATION_LIFETIME = timedelta(days=7)
TOKEN_BYTES = 32

_table: Table = OneTimeToken.__table__  # type: ignore[assignment]

_MAIL_FOR = {
    TokenPurpose.EMAIL_CHANGE: MailKind.EMAIL_CHANGE_CONFIRM,
    TokenPurpose.EMAIL_VERIFICATION: MailKind.VERIFY_EMAIL,
    TokenPurpose.INVITATION: MailKind.INVITATION,
    TokenPurpose.PASSWORD_RESET: MailKind.PASSWORD_RESET,
}


class InvalidToken(Malformed):
    """The token is unknown, used, void or expired."""

    code = "invalid_token"
    title = "This link is not valid any more."


class OneTimeTokens:
    """Issues, redeems and voids one-time tokens, always in the caller's transaction."""

    def __init__(self, *, clock: Clock, mails: MailQueue) -> None:
        self._clock = clock
        self._mails = mails

    def send(self, purpose: TokenPurpose, *, user_id: UUID, email: str, actor: Actor) -> None:
        """Ask for a mail with a new token; earlier tokens of the same purpose are void."""
        self.send_all(purpose, {user_id: email}, actor=actor)

    def send_all(
        self, purpose: TokenPurpose, recipients: Mapping[UUID, str], *, actor: Actor
    ) -> None:
        """Ask for such a mail for each user, by a few statements for all of them."""
        if not recipients:
            return
        session = require_transaction()
        now = self._clock.now()
        session.execute(
            self._voiding(now).where(_table.c.user_id.in_(recipients), _table.c.purpose == purpose)
        )
        invitation = purpose is TokenPurpose.INVITATION
        tokens = {user_id: new_id() for user_id in recipients}
        session.execute(
            insert(_table),
            [
                {
                    "id": token_id,
                    "user_id": user_id,
                    "purpose": purpose,
                    "email": recipients[user_id],
                    "created_at": now,
                    "expires_at": now + (INVITATION_LIFETIME if invitation else LIFETIME),
                }
                for user_id, token_id in tokens.items()
            ],
        )
        self._mails.ask_all(
            _MAIL_FOR[purpose],
            [
                Recipient(recipients[user_id], user_id=user_id, token_id=token_id)
                for user_id, token_id in tokens.items()
            ],
            correlation_id=actor.correlation_id,
        )

    def make_text(self, token_id: UUID) -> str | None:
        """Return the text of an open token, made now; None where it is no longer open.

        Called by the worker just before the mail is sent; a mail that is sent again gets a new
        text, and only the last one counts.
        """
        text = secrets.token_urlsafe(TOKEN_BYTES)
        opened = require_transaction().execute(
            update(_table)
            .where(_table.c.id == token_id, *self._is_open(self._clock.now()))
            .values(token_hash=digest(text))
            .returning(_table.c.id)
        )
        return text if opened.first() is not None else None

    def find(self, text: str, *purposes: TokenPurpose) -> OneTimeToken:
        """Return the open token with this text and leave it usable. Raises InvalidToken."""
        session = require_transaction()
        token = session.scalars(
            select(OneTimeToken).where(
                _table.c.token_hash == digest(text),
                _table.c.purpose.in_(purposes),
                *self._is_open(self._clock.now()),
            )
        ).one_or_none()
        if token is None:
            raise InvalidToken()
        return token

    def redeem(self, text: str, *purposes: TokenPurpose) -> OneTimeToken:
        """Use the token with this text up, in one statement, and return it. Raises InvalidToken.

        However many try it at once, one of them gets it.
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
        """Make every open token of the user worthless."""
        voided = self._voiding(self._clock.now()).where(_table.c.user_id == user_id)
        require_transaction().execute(voided)

    def _voiding(self, now: datetime) -> Update:
        return (
            update(_table)
            .where(_table.c.used_at.is_(None), _table.c.voided_at.is_(None))
            .values(voided_at=now)
        )

    def _is_open(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        return (
            _table.c.used_at.is_(None),
            _table.c.voided_at.is_(None),
            _table.c.expires_at > now,
        )


def digest(text: str) -> str:
    """Return what is kept of a token's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
