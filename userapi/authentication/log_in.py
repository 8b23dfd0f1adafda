"""Log-in with a password: starts a session and returns its tokens."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from userapi.accounts.activation import lift_suspension
from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts
from userapi.accounts.views import ALL_USERS, COLUMNS, UserView, user_view, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import as_user
from userapi.authentication.password_check import InvalidCredentials, PasswordCheck
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import Forbidden, ServiceError
from userapi.infrastructure.database import transaction
from userapi.lockout.service import Lockout
from userapi.recorder import Recorder
from userapi.roles.graph import catalogue_version
from userapi.sessions.models import SessionKind
from userapi.sessions.service import Sessions

# Two concurrent log-ins that both rehash the password change the hash once under each other.
MAX_ATTEMPTS = 3


class AccountSuspended(Forbidden):
    """The password is correct, but the account is suspended."""

    code = "account_suspended"
    title = "This account is suspended."


class AccountPending(Forbidden):
    """The password is correct, but the account is not active yet."""

    code = "account_pending"
    title = "This account is not yet active."


@dataclass(frozen=True, slots=True)
class UserSnapshot:
    """A user and the version of the role catalogue, read by one statement."""

    view: UserView
    catalogue_version: int


class LogIn:
    """Logs users in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        lockout: Lockout,
        accounts: Accounts,
        sessions: Sessions,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._lockout = lockout
        self._accounts = accounts
        self._sessions = sessions
        self._token_pairs = token_pairs

    def with_password(
        self,
        identifier: str,
        password: str,
        *,
        actor: Actor,
        remember_me: bool = False,
        kind: SessionKind = SessionKind.API,
    ) -> TokenPair:
        """Start a session for the user with this name or address and password.

        Raises Busy, TooManyAttempts, InvalidCredentials, and after the correct password
        AccountSuspended or AccountPending. An unknown identifier takes the same time and raises
        the same error as a wrong password.
        """
        # Before any query: most log-ins of a sudden burst end here.
        self._password_check.require_capacity()
        identifier = canonical_identifier(identifier)
        for _ in range(MAX_ATTEMPTS):
            pair = self._try_password(identifier, password, actor, remember_me, kind)
            if pair is not None:
                return pair
        raise InvalidCredentials()

    def _try_password(
        self, identifier: str, password: str, actor: Actor, remember_me: bool, kind: SessionKind
    ) -> TokenPair | None:
        """Log in as `with_password` does; None if the hash changed during the check."""
        verified = self._password_check.verify(identifier, password, actor=actor)
        new_hash = self._password_check.rehash(password, verified)
        with transaction() as session:
            user = session.get(User, verified.user_id, with_for_update=True)
            if user is None or user.password_hash != verified.password_hash:
                # Deleted, given another password, or rehashed by a concurrent log-in: the hash
                # that was checked is no longer the current one.
                self._lockout.release_attempt(verified.lockout_key)
                return None
            lift_suspension(self._accounts, session, user, actor=actor, now=self._recorder.now())
            refusal = _status_refusal(user)
            actor = as_user(actor, user)
            if refusal is None:
                self._lockout.clear([verified.lockout_key])
                snapshot = self._record_log_in(session, user, new_hash)
                own = self._sessions.start(
                    snapshot.view.facts, actor=actor, remember_me=remember_me, kind=kind
                )
                self._recorder.audit.record(
                    AuditAction.AUTH_LOGIN,
                    actor=replace(actor, session_id=own.id),
                    target=("user", user.id),
                )
            else:
                self._record_refusal(user, refusal, key=verified.lockout_key, actor=actor)
        if refusal is not None:
            raise refusal
        return self._token_pairs.issue(
            own,
            snapshot.view,
            catalogue_version=snapshot.catalogue_version,
            user=snapshot.view,
        )

    def _record_log_in(self, session: Session, user: User, new_hash: str | None) -> UserSnapshot:
        """Store the log-in in the locked row of the user, and return the user after that."""
        now = self._recorder.now()
        # User name and address are locked separately: the other one may still be locked.
        user.locked_until = self._lockout.longest_lock(self._accounts.lockout_keys(user))
        user.last_login_at = now
        if new_hash is not None:
            user.password_hash = new_hash
        self._accounts.invalidate_cached_sessions(user)
        session.flush()
        return _read_snapshot(session, user.id, now)

    def _record_refusal(self, user: User, refusal: ServiceError, *, key: str, actor: Actor) -> None:
        """Record that the correct password does not log in; this does not count as a failure."""
        self._lockout.release_attempt(key)
        self._recorder.audit.record(
            AuditAction.AUTH_LOGIN,
            actor=actor,
            target=("user", user.id),
            outcome=Outcome.DENIED,
            details={"reason": refusal.code},
        )


def _status_refusal(user: User) -> ServiceError | None:
    if user.status == UserStatus.SUSPENDED:
        return AccountSuspended()
    if user.status == UserStatus.PENDING:
        return AccountPending()
    return None


_SNAPSHOT = ALL_USERS.add_columns(catalogue_version()).where(users.c.id == bindparam("of_user"))


def _read_snapshot(session: Session, user_id: UUID, now: datetime) -> UserSnapshot:
    """Return a user whose row the open transaction has locked."""
    row = session.execute(_SNAPSHOT, {"of_user": user_id}).one()
    return UserSnapshot(user_view(row, now), row[COLUMNS])
