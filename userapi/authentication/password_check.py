"""Checks a password and counts failures: for log-in and for re-authentication."""

from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from userapi.accounts.locks import AccountLocks
from userapi.accounts.models import User
from userapi.accounts.views import identifying_column, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.refusals import TokenRevoked
from userapi.errors import ServiceError, Unauthenticated, Unavailable
from userapi.infrastructure.database import reading, transaction
from userapi.lockout.service import Lock, Lockout, TooManyAttempts
from userapi.mail.models import MailKind
from userapi.passwords.hashing import PasswordHasher, Verification
from userapi.passwords.one_time_tokens import NOBODY
from userapi.passwords.peppers import PepperMissing, Peppers
from userapi.recorder import Recorder

# What the audit log contains about the step that checks a password.
BY_PASSWORD = {"method": "password", "step": "password"}

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
        locks: AccountLocks,
    ) -> None:
        self._recorder = recorder
        self._lockout = lockout
        self._hasher = hasher
        self._peppers = peppers
        self._locks = locks

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
            lock = self._lockout.fail(key)
            self._recorder.audit.record(
                AuditAction.AUTH_LOGIN,
                actor=actor,
                target=_target(user_id),
                outcome=Outcome.FAILURE,
                details={
                    **BY_PASSWORD,
                    "reason": InvalidCredentials.code,
                    "identifier_hash": key[:16],
                },
            )
            if lock is not None and user_id is not None:
                self._lock(session, user_id, lock, actor)

    def _lock(self, session: Session, user_id: UUID, lock: Lock, actor: Actor) -> None:
        """Record that an identifier is locked, and notify the owner."""
        user = session.get(User, user_id)
        if user is None:
            return
        # One mail for consecutive locks, so that an attacker cannot flood the mailbox.
        mail = MailKind.ACCOUNT_LOCKED if user.locked_until is None else None
        self._locks.record(user, lock, actor=actor, mail=mail)


def _target(user_id: UUID | None) -> tuple[str, UUID] | None:
    return None if user_id is None else ("user", user_id)


_BY_IDENTIFIER = {
    column: select(users.c.id, users.c.password_hash).where(column == bindparam("identifier"))
    for column in (users.c.username, users.c.email_normalized)
}
