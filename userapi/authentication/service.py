"""Logging in, refreshing and logging out, and what a token is worth at this moment."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts, UserNotFound
from userapi.accounts.views import UserView, find_user, users
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.service import AuditTrail
from userapi.authentication.credentials import (
    StoredCredentials,
    UserSnapshot,
    find_credentials,
    read_snapshot,
)
from userapi.authentication.refusals import TokenInvalid, TokenRefused, TokenRevoked
from userapi.authentication.rotation import (
    RotatedSession,
    SessionOwner,
    lock_owner,
    lock_session,
    rotate,
    rotate_in_one_statement,
)
from userapi.authentication.token_claims import AccessClaims, RefreshClaims
from userapi.authentication.tokens import AccessGrant, AccessTokens, RefreshTokens
from userapi.clock import Clock, rfc3339
from userapi.errors import (
    Forbidden,
    ServiceError,
    Unauthenticated,
    Unavailable,
    invalid_field,
    require_all,
)
from userapi.events.catalogue import EventType, SessionEvent, UserEvent
from userapi.events.outbox import Outbox
from userapi.infrastructure.database import (
    after_commit,
    autocommit,
    reading,
    require_transaction,
    supports_writable_ctes,
    transaction,
)
from userapi.lockout.service import Lockout, TooManyAttempts
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.one_time_tokens import NOBODY, OneTimeTokens
from userapi.passwords.peppers import PepperMissing, Peppers
from userapi.passwords.policy import PasswordPolicy
from userapi.roles.service import RoleGraph, Roles
from userapi.sessions.models import SessionKind, UserSession
from userapi.sessions.service import EndReason, Sessions
from userapi.sessions.status import LiveSession, LiveSessions
from userapi.settings import Settings

log = structlog.get_logger(__name__)

# A hash that is made anew at each of two log-ins at once changes at most this often under one.
PASSWORD_CHANGES_WAITED_OUT = 3


class InvalidCredentials(Unauthenticated):
    """The one refusal of a log-in: it does not tell what was wrong."""

    code = "invalid_credentials"
    title = "The user name or password is incorrect."


class AccountSuspended(Forbidden):
    """The password is right, but the account is suspended."""

    code = "account_suspended"
    title = "This account is suspended."


class AccountPending(Forbidden):
    """The password is right, but the account is not active yet."""

    code = "account_pending"
    title = "This account is not yet active."


class RefreshTokenReused(TokenRefused):
    """An old refresh token came back: somebody has a copy, so the session has ended."""

    code = "refresh_token_reused"
    title = "This refresh token was used before. The session has ended."


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """What a client gets that logs in or refreshes."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int
    user_id: UUID
    session_id: UUID
    session_version: int
    user: UserView | None = None


class SessionReference(Protocol):
    """What names a session in one of its versions: the claims of a token, or a browser's cookie."""

    @property
    def user_id(self) -> UUID: ...

    @property
    def session_id(self) -> UUID: ...

    @property
    def session_version(self) -> int: ...


class Authentication:
    """The use cases of signing in and staying signed in."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        audit: AuditTrail,
        outbox: Outbox,
        roles: Roles,
        sessions: Sessions,
        live: LiveSessions,
        lockout: Lockout,
        hasher: PasswordHasher,
        peppers: Peppers,
        policy: PasswordPolicy,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
        accounts: Accounts,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        count_lock: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._audit = audit
        self._outbox = outbox
        self._roles = roles
        self._sessions = sessions
        self._live = live
        self._lockout = lockout
        self._hasher = hasher
        self._peppers = peppers
        self._policy = policy
        self._one_time_tokens = one_time_tokens
        self._mails = mails
        self._accounts = accounts
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._count_lock = count_lock
        self._grace = timedelta(seconds=settings.refresh_reuse_grace_seconds)

    # Signing in

    def log_in(
        self,
        identifier: str,
        password: str,
        *,
        actor: Actor,
        remember_me: bool = False,
        kind: SessionKind = SessionKind.API,
    ) -> TokenPair:
        """Start a session for whoever knows the password.

        Raises Busy, TooManyAttempts, InvalidCredentials, and after the right password
        AccountSuspended or AccountPending. An unknown identifier costs the same time and gets the
        same answer.
        """
        # Before the database is asked: in a storm of log-ins most of them end here.
        self._hasher.require_room()
        identifier = canonical_identifier(identifier)
        for _ in range(PASSWORD_CHANGES_WAITED_OUT):
            pair = self._try_to_log_in(identifier, password, actor, remember_me, kind)
            if pair is not None:
                return pair
        raise InvalidCredentials()

    def _try_to_log_in(
        self, identifier: str, password: str, actor: Actor, remember_me: bool, kind: SessionKind
    ) -> TokenPair | None:
        """Log in as `log_in` does; None where the hash changed while the password was checked."""
        key = self._lockout.key_of(identifier)
        with reading() as connection:
            stored = find_credentials(connection, identifier)
        self._check_password(password, stored, key=key, actor=actor)
        if stored is None:  # No password matches an unknown account, so the check has raised.
            raise InvalidCredentials()
        rehashed = self._rehashed(password, stored)
        with transaction() as session:
            user = session.get(User, stored.id, with_for_update=True)
            if user is None or user.password_hash != stored.password_hash:
                # Deleted, given another password, or hashed again by a concurrent log-in: the hash
                # that was checked is no longer the current one.
                self._lockout.release_attempt(key)
                return None
            self._accounts.lift_suspension(session, user, actor=actor)
            refusal = _status_refusal(user)
            actor = as_user(actor, user)
            if refusal is None:
                self._lockout.clear([key])
                snapshot = self._record_log_in(session, user, rehashed)
                own = self._sessions.start(
                    snapshot.view.facts, actor=actor, remember_me=remember_me, kind=kind
                )
                self._audit.record(
                    AuditAction.AUTH_LOGIN,
                    actor=replace(actor, session_id=own.id),
                    target=("user", user.id),
                )
            else:
                self._record_refusal(user, refusal, key=key, actor=actor)
        if refusal is not None:
            raise refusal
        graph = self._roles.graph(snapshot.catalogue_version)
        return self._pair(own, _entitled(snapshot.view), graph, user=snapshot.view)

    def _record_log_in(self, session: Session, user: User, rehashed: str | None) -> UserSnapshot:
        """Store in a locked user's row that they log in, and return the user as they are then."""
        now = self._clock.now()
        # Name and address are locked separately; the UPDATE reads the lock of the other one.
        user.locked_until = self._lockout.longest_lock(self._accounts.lockout_keys(user))
        user.last_login_at = now
        if rehashed is not None:
            user.password_hash = rehashed
        self._accounts.invalidate_cached_sessions(user)
        session.flush()
        return read_snapshot(session, user.id, now)

    def _record_refusal(self, user: User, refusal: ServiceError, *, key: str, actor: Actor) -> None:
        """Record that the right password does not log in; it does not count as a failure."""
        self._lockout.release_attempt(key)
        self._audit.record(
            AuditAction.AUTH_LOGIN,
            actor=actor,
            target=("user", user.id),
            outcome=Outcome.DENIED,
            details={"reason": refusal.code},
        )

    def require_password(self, user_id: UUID, password: str, *, actor: Actor) -> None:
        """Check the present password of somebody who is signed in already.

        A wrong one counts as a failed log-in for their name. Raises TooManyAttempts,
        InvalidCredentials.
        """
        with reading() as connection:
            row = connection.execute(
                select(users.c.id, users.c.username, users.c.password_hash).where(
                    users.c.id == user_id
                )
            ).one_or_none()
        if row is None:
            raise TokenRevoked()
        key = self._lockout.key_of(row.username)
        self._check_password(
            password, StoredCredentials(row.id, row.password_hash), key=key, actor=actor
        )
        with transaction():
            self._lockout.clear([key])

    def change_password(self, *, current: str, new: str, actor: Actor) -> TokenPair:
        """Set a new password and return a new pair for the same session; all others end.

        Raises InvalidCredentials, TooManyAttempts, Invalid.
        """
        if actor.id is None or actor.session_id is None:
            raise TokenRevoked()
        self.require_password(actor.id, current, actor=actor)
        with reading() as connection:
            known = find_user(connection, actor.id, self._clock.now())
        if known is None:
            raise TokenRevoked()
        require_all(
            lambda: self._policy.require(
                new, username=known.username, email=known.email, field="new_password"
            ),
            lambda: _require_another(new, current),
        )
        password_hash = self._hasher.hash(new)
        with transaction() as session:
            user = session.get(User, actor.id, with_for_update=True)
            own = self._locked_session(actor.session_id)
            if user is None or own is None or not self._sessions.is_live(own):
                raise TokenRevoked()
            view = self.set_password(user, password_hash, actor=actor)
            self._sessions.end_all(
                user=view.facts, actor=actor, reason=EndReason.PASSWORD_CHANGED, keep=own.id
            )
            self._renew(own)
            session.flush()
            self._audit.record(
                AuditAction.AUTH_PASSWORD_CHANGED, actor=actor, target=("user", user.id)
            )
        return self._pair(own, _entitled(view), self._roles.graph())

    def set_password_for(self, user_id: UUID, new: str, *, actor: Actor) -> None:
        """Set somebody's password for them; every session they have ends.

        Raises UserNotFound, Invalid.
        """
        known = self._accounts.get(user_id)
        self._policy.require(new, username=known.username, email=known.email)
        password_hash = self._hasher.hash(new)
        with transaction() as session:
            user = session.get(User, user_id, with_for_update=True)
            if user is None:
                raise UserNotFound()
            view = self.set_password(user, password_hash, actor=actor)
            self._accounts.clear_failed_logins(user)
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)
            self._audit.record(
                AuditAction.AUTH_PASSWORD_CHANGED, actor=actor, target=("user", user_id)
            )

    def set_password(self, user: User, password_hash: str, *, actor: Actor) -> UserView:
        """Give a locked user a new password hash, in the open transaction.

        Open one-time tokens are void, and what is cached of the user ends.
        """
        session = require_transaction()
        now = self._clock.now()
        user.password_hash = password_hash
        user.password_changed_at = now
        user.must_change_password = False
        user.version += 1
        user.updated_at = now
        self._accounts.invalidate_cached_sessions(user)
        self._one_time_tokens.void_all(user.id)
        session.flush()
        view = self._view(session, user.id)
        self._outbox.append(
            UserEvent(type=EventType.USER_PASSWORD_CHANGED, user=view.facts), actor=actor
        )
        self._mails.enqueue(
            MailKind.PASSWORD_CHANGED,
            recipient=user.email,
            user_id=user.id,
            correlation_id=actor.correlation_id,
        )
        return view

    # Staying signed in

    def refresh(self, refresh_token: str, *, actor: Actor) -> TokenPair:
        """Exchange a refresh token for a new pair; each is good once.

        The immediate predecessor gets the same successor again for a short grace, so that a client
        that lost the answer, or asked twice at once, stays signed in. Anything older ends the
        session, which stays ended although the request is refused (RFC 9700 §4.14.2).
        Raises TokenInvalid, TokenExpired, TokenRevoked, RefreshTokenReused.
        """
        claims = self._refresh_tokens.verify(refresh_token)
        own, owner = self._rotate_fast_path(claims, actor) or self._rotate_locked(claims, actor)
        return self._pair(own, _entitled(owner), self._roles.graph(owner.catalogue_version))

    def _rotate_fast_path(
        self, claims: RefreshClaims, actor: Actor
    ) -> tuple[RotatedSession, SessionOwner] | None:
        """Rotate in one statement where the database can; None if it rotates nothing."""
        if not supports_writable_ctes():
            return None
        noted = self._audit.parameters(
            AuditAction.AUTH_REFRESH,
            actor=_as_owner(actor, claims),
            target=("session", claims.session_id),
        )
        with autocommit() as connection:
            return rotate_in_one_statement(
                connection,
                claims,
                now=self._clock.now(),
                idle=self._sessions.idle_timeout,
                noted=noted,
            )

    def _rotate_locked(
        self, claims: RefreshClaims, actor: Actor
    ) -> tuple[RotatedSession, SessionOwner]:
        """Rotate under locks, or decide what else the token is. Raises as `refresh` does."""
        reused = False
        with transaction() as session:
            connection = session.connection()
            owner = lock_owner(connection, claims)
            own = rotate(
                connection, claims, now=self._clock.now(), idle=self._sessions.idle_timeout
            ) or lock_session(connection, claims)
            if own is not None and own.user_id != claims.user_id:
                raise TokenInvalid()
            if own is None or owner is None or owner.status != UserStatus.ACTIVE:
                raise TokenRevoked()
            if own.version != claims.session_version or not self._sessions.is_live(own):
                raise TokenRevoked()
            actor = replace(_as_owner(actor, claims), username=owner.username)
            if own.rotated:
                self._audit.record(
                    AuditAction.AUTH_REFRESH, actor=actor, target=("session", own.id)
                )
            elif not self._is_predecessor(claims, own):
                reused = True
                self._end_reused(own.id, self._view(session, own.user_id), actor)
        if reused:
            raise RefreshTokenReused()
        return own, owner

    def _is_predecessor(self, claims: RefreshClaims, own: RotatedSession) -> bool:
        return (
            claims.generation == own.generation - 1
            and self._clock.now() <= own.rotated_at + self._grace
            and self._grace > timedelta()
        )

    def _end_reused(self, session_id: UUID, view: UserView, actor: Actor) -> None:
        self._audit.record(
            AuditAction.AUTH_REFRESH_REUSE_DETECTED,
            actor=actor,
            target=("session", session_id),
            outcome=Outcome.DENIED,
        )
        self._outbox.append(
            SessionEvent(
                type=EventType.SESSION_REUSE_DETECTED, user=view.facts, session_id=session_id
            ),
            actor=actor,
        )
        self._sessions.end(
            session_id, user=view.facts, actor=actor, reason=EndReason.REFRESH_REUSED
        )

    # Signing out

    def log_out(self, own: SessionReference, *, actor: Actor, all_sessions: bool = False) -> None:
        """End a session that somebody shows to be theirs, or every session of its user.

        Doing it again is no error.
        """
        self._end_session(own, actor=actor, all_sessions=all_sessions)

    def revoke(self, token: str, *, actor: Actor) -> None:
        """End the session of an access or refresh token (RFC 7009); any other text is ignored."""
        try:
            claims = self.inspect(token)
        except Unauthenticated:
            return
        self._end_session(claims, actor=actor, all_sessions=False)

    def _end_session(self, claims: SessionReference, *, actor: Actor, all_sessions: bool) -> None:
        """End the session that a token is of, unless the token was dead before."""
        user_id, session_id = claims.user_id, claims.session_id
        with transaction() as session:
            user = session.get(User, user_id, with_for_update=True)
            own = self._locked_session(session_id)
            if user is None or own is None or own.user_id != user_id:
                return
            if not self._sessions.is_live(own) or own.version != claims.session_version:
                return
            actor = replace(as_user(actor, user), session_id=session_id)
            view = self._view(session, user_id)
            self._audit.record(
                AuditAction.AUTH_LOGOUT,
                actor=actor,
                target=("user", user_id),
                details={"all_sessions": all_sessions},
            )
            if all_sessions:
                self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.LOGOUT)
            else:
                self._sessions.end(
                    session_id, user=view.facts, actor=actor, reason=EndReason.LOGOUT
                )

    # What a token is worth

    def verify_signature(self, token: str) -> AccessClaims:
        """Return the claims of an access token without asking whether its session still lives."""
        return self._access_tokens.verify(token)

    def inspect(self, token: str) -> AccessClaims | RefreshClaims:
        """Return the claims of a token of either kind. Raises TokenInvalid, TokenExpired."""
        if self._refresh_tokens.looks_like_refresh_token(token):
            return self._refresh_tokens.verify(token)
        return self._access_tokens.verify(token)

    def require_live(self, claims: SessionReference, *, answer: object = None) -> LiveSession:
        """Return the live session behind a token or a cookie. Raises TokenRevoked, TokenInvalid."""
        live = self._live.find(
            claims.session_id,
            user_id=claims.user_id,
            session_version=claims.session_version,
            reply=answer,
        )
        if live is None:
            raise TokenRevoked()
        if live.user_id != claims.user_id:
            raise TokenInvalid()
        if live.session_version != claims.session_version:
            raise TokenRevoked()
        return live

    # Steps

    def _check_password(
        self, password: str, stored: StoredCredentials | None, *, key: str, actor: Actor
    ) -> None:
        """Reserve one of the identifier's attempts and verify. Raises as `log_in` does.

        No connection is held while the hash is computed.
        """
        user_id = stored.id if stored else None
        target = ("user", user_id) if user_id else None
        try:
            self._lockout.reserve_attempt(key)
        except TooManyAttempts:
            self._audit.record_alone(
                AuditAction.AUTH_LOGIN_BLOCKED, actor=actor, target=target, outcome=Outcome.DENIED
            )
            raise
        known_hash = stored.password_hash if stored else None
        try:
            # Hash for unknown users too: equal time hides which accounts exist.
            verification = self._hasher.verify(password, known_hash)
            if not verification.matches and self._peppers.is_any_missing() and known_hash is None:
                # As for those whose hash cannot be checked: the answer hides which accounts exist.
                raise PepperMissing()
        except Unavailable:
            with transaction():
                self._lockout.release_attempt(key)
            raise
        if verification.matches and stored is not None:
            stored.needs_rehash = verification.needs_rehash
            return
        with transaction() as session:
            # The user before the count, as everybody locks them who clears it: the other way round
            # an unlock and a failure would each wait for the other. Also for an unknown user, as
            # the time that it takes must not tell.
            session.execute(
                select(users.c.id).where(users.c.id == (user_id or NOBODY)).with_for_update()
            )
            locked_until = self._lockout.fail(key)
            self._audit.record(
                AuditAction.AUTH_LOGIN,
                actor=actor,
                target=target,
                outcome=Outcome.FAILURE,
                details={"reason": InvalidCredentials.code, "identifier_hash": key[:16]},
            )
            if locked_until is not None and user_id is not None:
                self._lock(session, user_id, locked_until, actor)
        raise InvalidCredentials()

    def _lock(self, session: Session, user_id: UUID, until: datetime, actor: Actor) -> None:
        user = session.get(User, user_id)
        if user is None:
            return
        after_commit(self._count_lock)
        was_locked = user.locked_until is not None
        # Name and address are locked each for itself; the later end is the one to be shown.
        user.locked_until = max(until, user.locked_until or until)
        self._accounts.invalidate_cached_sessions(user)
        session.flush()
        view = self._view(session, user_id)
        self._audit.record(
            AuditAction.USER_LOCKED,
            actor=actor,
            target=("user", user_id),
            details={"until": rfc3339(until)},
        )
        self._outbox.append(UserEvent(type=EventType.USER_LOCKED, user=view.facts), actor=actor)
        if not was_locked:
            # Told once for a row of locks, not at each: the mail must not become a weapon.
            self._mails.enqueue(
                MailKind.ACCOUNT_LOCKED,
                recipient=user.email,
                user_id=user_id,
                data={"until": rfc3339(until)},
                correlation_id=actor.correlation_id,
            )

    def _rehashed(self, password: str, stored: StoredCredentials) -> str | None:
        """Return a hash of today's strength where the stored one is older; never fails a log-in."""
        if not stored.needs_rehash:
            return None
        try:
            return self._hasher.hash(password)
        except ServiceError:
            log.warning("password.rehash_failed", user_id=str(stored.id))
            return None

    def _locked_session(self, session_id: UUID) -> UserSession | None:
        return require_transaction().get(
            UserSession, session_id, with_for_update=True, populate_existing=True
        )

    def _renew(self, own: UserSession) -> None:
        """Give a locked session a new version: every token issued for it so far is dead."""
        now = self._clock.now()
        own.generation += 1
        own.version += 1
        own.rotated_at = now
        own.last_used_at = now
        self._tell_live(own)

    def _tell_live(self, own: UserSession) -> None:
        session_id, version = own.id, own.version
        after_commit(lambda: self._live.session_changed(session_id, version=version, live=True))

    def _view(self, session: Session, user_id: UUID) -> UserView:
        view = find_user(session, user_id, self._clock.now())
        if view is None:
            raise TokenRevoked()
        return view

    def _pair(
        self,
        own: UserSession | RotatedSession,
        role_names: Sequence[str],
        graph: RoleGraph,
        user: UserView | None = None,
    ) -> TokenPair:
        access = self._access_tokens.issue(
            AccessGrant(
                user_id=own.user_id,
                session_id=own.id,
                session_version=own.version,
                roles=tuple(sorted(role_names)),
                permissions=tuple(graph.effective(role_names)),
            )
        )
        refresh = self._refresh_tokens.issue(
            user_id=own.user_id,
            session_id=own.id,
            session_version=own.version,
            generation=own.generation,
            rotated_at=own.rotated_at,
            expires_at=own.expires_at,
        )
        now = self._clock.now()
        return TokenPair(
            access_token=access.token,
            refresh_token=refresh.token,
            expires_in=_seconds(access.expires_at - now),
            refresh_expires_in=_seconds(refresh.expires_at - now),
            user_id=own.user_id,
            session_id=own.id,
            session_version=own.version,
            user=user,
        )


def _entitled(owner: UserView | SessionOwner) -> Sequence[str]:
    """Return the roles that the tokens of somebody may speak of.

    None for whoever must change the password first: no other service may take those for more.
    """
    return () if owner.must_change_password else owner.roles


def _as_owner(actor: Actor, claims: RefreshClaims) -> Actor:
    return replace(actor, type=ActorType.USER, id=claims.user_id, session_id=claims.session_id)


def as_user(actor: Actor, user: User | UserView) -> Actor:
    """Return the actor as this user: who knows the password is no longer anonymous."""
    return replace(actor, type=ActorType.USER, id=user.id, username=user.username)


def _status_refusal(user: User) -> ServiceError | None:
    if user.status == UserStatus.SUSPENDED:
        return AccountSuspended()
    if user.status == UserStatus.PENDING:
        return AccountPending()
    return None


def _require_another(new: str, current: str) -> None:
    if unicodedata.normalize("NFKC", new) == unicodedata.normalize("NFKC", current):
        raise invalid_field(
            "new_password", "Must differ from the current password.", "password_unchanged"
        )


def _seconds(span: timedelta) -> int:
    return max(0, math.ceil(span.total_seconds()))
