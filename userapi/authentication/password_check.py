"""Checks a password and counts failures: for log-in and for re-authentication."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.accounts.views import identifying_column, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import view_of
from userapi.authentication.refusals import TokenRevoked
from userapi.clock import rfc3339
from userapi.errors import ServiceError, Unauthenticated, Unavailable
from userapi.events.catalogue import EventType, UserEvent
from userapi.infrastructure.database import after_commit, reading, transaction
from userapi.lockout.service import Lockout, TooManyAttempts
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.hashing import PasswordHasher, Verification
from userapi.passwords.one_time_tokens import NOBODY
from userapi.passwords.peppers import PepperMissing, Peppers
from userapi.recorder import Recorder

log = structlog.get_logger(__name__)


class InvalidCredentials(Unauthenticated):
    """The one refusal of a log-in: it does not reveal what was wrong."""

    code = "invalid_credentials"
    title = "The user name or password is incorrect."


@dataclass(frozen=True, slots=True)
class StoredCredentials:
    """The account that an identifier names.

    No other column is read before the check: equal time hides which accounts exist.
    """

    user_id: UUID
    password_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPassword:
    """An account whose password was correct; one attempt of `lockout_key` is still reserved."""

    user_id: UUID
    password_hash: str | None
    needs_rehash: bool
    lockout_key: str


class PasswordCheck:
    """Checks passwords. Too many failures lock the identifier."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        lockout: Lockout,
        hasher: PasswordHasher,
        peppers: Peppers,
        accounts: Accounts,
        mails: MailQueue,
        count_lock: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._lockout = lockout
        self._hasher = hasher
        self._peppers = peppers
        self._accounts = accounts
        self._mails = mails
        self._count_lock = count_lock

    def require_capacity(self) -> None:
        """Raise Busy if the queue for hashing is full, before any query."""
        self._hasher.require_room()

    def verify(self, identifier: str, password: str, *, actor: Actor) -> VerifiedPassword:
        """Return the account with this canonical identifier if the password is correct.

        The caller then clears the failures of `lockout_key` or releases the attempt. An unknown
        identifier takes the same time and raises the same error. Raises Busy, TooManyAttempts,
        InvalidCredentials.
        """
        query = _BY_IDENTIFIER[identifying_column(identifier)]
        key = self._lockout.key_of(identifier)
        with reading() as connection:
            row = connection.execute(query, {"identifier": identifier}).one_or_none()
        stored = None if row is None else StoredCredentials(*row)
        return self._verify(password, stored, key=key, actor=actor)

    def rehash(self, password: str, verified: VerifiedPassword) -> str | None:
        """Return a hash with the current cost and pepper if the stored one is older.

        A failure is logged and does not fail the log-in.
        """
        if not verified.needs_rehash:
            return None
        try:
            return self._hasher.hash(password)
        except ServiceError:
            log.warning("password.rehash_failed", user_id=str(verified.user_id))
            return None

    def require_current(self, user_id: UUID, password: str, *, actor: Actor) -> None:
        """Check the current password of a user who is signed in.

        A wrong password counts as a failed log-in of their user name. Raises Busy,
        TooManyAttempts, InvalidCredentials.
        """
        query = select(users.c.id, users.c.password_hash, users.c.username)
        with reading() as connection:
            row = connection.execute(query.where(users.c.id == user_id)).one_or_none()
        if row is None:
            raise TokenRevoked()
        key = self._lockout.key_of(row.username)
        stored = StoredCredentials(row.id, row.password_hash)
        self._verify(password, stored, key=key, actor=actor)
        with transaction():
            self._lockout.clear([key])

    def _verify(
        self, password: str, stored: StoredCredentials | None, *, key: str, actor: Actor
    ) -> VerifiedPassword:
        """Reserve one attempt of the identifier, then verify.

        No connection is held while the hash is computed.
        """
        user_id = stored.user_id if stored else None
        try:
            self._lockout.reserve_attempt(key)
        except TooManyAttempts:
            self._recorder.audit.record_alone(
                AuditAction.AUTH_LOGIN_BLOCKED,
                actor=actor,
                target=_target(user_id),
                outcome=Outcome.DENIED,
            )
            raise
        try:
            verification = self._compare(password, stored.password_hash if stored else None)
        except Unavailable:
            with transaction():
                self._lockout.release_attempt(key)
            raise
        if verification.matches and stored is not None:
            return VerifiedPassword(
                user_id=stored.user_id,
                password_hash=stored.password_hash,
                needs_rehash=verification.needs_rehash,
                lockout_key=key,
            )
        self._record_failure(user_id, key=key, actor=actor)
        raise InvalidCredentials()

    def _compare(self, password: str, password_hash: str | None) -> Verification:
        # Hash for unknown users too: equal time hides which accounts exist.
        verification = self._hasher.verify(password, password_hash)
        if not verification.matches and self._peppers.is_any_missing() and password_hash is None:
            # The same error as for a hash that cannot be checked hides which accounts exist.
            raise PepperMissing()
        return verification

    def _record_failure(self, user_id: UUID | None, *, key: str, actor: Actor) -> None:
        """Count and audit a wrong password; lock the account if it was one too many."""
        with transaction() as session:
            # Lock the user before the count, in the same order as an unlock, to prevent a deadlock.
            # The statement also runs for an unknown user: equal time hides which accounts exist.
            session.execute(
                select(users.c.id).where(users.c.id == (user_id or NOBODY)).with_for_update()
            )
            locked_until = self._lockout.fail(key)
            self._recorder.audit.record(
                AuditAction.AUTH_LOGIN,
                actor=actor,
                target=_target(user_id),
                outcome=Outcome.FAILURE,
                details={"reason": InvalidCredentials.code, "identifier_hash": key[:16]},
            )
            if locked_until is not None and user_id is not None:
                self._lock(session, user_id, locked_until, actor)

    def _lock(self, session: Session, user_id: UUID, until: datetime, actor: Actor) -> None:
        """Show in the user's row that an identifier is locked, and notify the owner."""
        user = session.get(User, user_id)
        if user is None:
            return
        after_commit(self._count_lock)
        was_locked = user.locked_until is not None
        # User name and e-mail address are locked separately; the row shows the later end.
        user.locked_until = max(until, user.locked_until or until)
        self._accounts.invalidate_cached_sessions(user)
        session.flush()
        facts = view_of(session, user_id, self._recorder.now()).facts
        self._recorder.audit.record(
            AuditAction.USER_LOCKED,
            actor=actor,
            target=_target(user_id),
            details={"until": rfc3339(until)},
        )
        self._recorder.outbox.append(UserEvent(type=EventType.USER_LOCKED, user=facts), actor=actor)
        if not was_locked:
            # One mail for consecutive locks, so that an attacker cannot flood the mailbox.
            self._mails.enqueue(
                MailKind.ACCOUNT_LOCKED,
                recipient=user.email,
                user_id=user_id,
                data={"until": rfc3339(until)},
                correlation_id=actor.correlation_id,
            )


def _target(user_id: UUID | None) -> tuple[str, UUID] | None:
    return None if user_id is None else ("user", user_id)


_BY_IDENTIFIER = {
    column: select(users.c.id, users.c.password_hash).where(column == bindparam("identifier"))
    for column in (users.c.username, users.c.email_normalized)
}
