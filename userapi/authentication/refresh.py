"""Refresh: exchanges a refresh token for a new pair of tokens. Each token is accepted once.

On PostgreSQL, one statement locks the user, rotates the session to its next generation and inserts
the audit row: one round trip instead of five. If that statement changes no row, and always on
SQLite, the locked path decides step by step. Both paths write the same rows, which
tests/integration/test_refresh_parity.py checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, true, update

from userapi.accounts.models import UserStatus
from userapi.accounts.views import UserView, users
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.service import audit_cte
from userapi.authentication.owners import view_of
from userapi.authentication.refusals import TokenInvalid, TokenRefused, TokenRevoked
from userapi.authentication.token_claims import RefreshClaims
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.authentication.tokens import RefreshTokens
from userapi.errors import OutcomeUnknown
from userapi.events.catalogue import EventType, SessionEvent
from userapi.infrastructure.database import (
    PreparedStatement,
    after_commit,
    autocommit,
    supports_writable_ctes,
    table_of,
    transaction,
)
from userapi.recorder import Recorder
from userapi.roles.graph import catalogue_version
from userapi.sessions.authentication_level import Authentication, stored_authentication
from userapi.sessions.models import UserSession, authentication_columns, is_live
from userapi.sessions.service import EndReason, Sessions
from userapi.sessions.status import LiveSessions, role_names_column


class RefreshTokenReused(TokenRefused):
    """An old refresh token was sent: somebody has a copy of it, so the session has ended."""

    code = "refresh_token_reused"
    title = "This refresh token was used before. The session has ended."


@dataclass(frozen=True, slots=True)
class RotatedSession:
    """The columns of a session that a refresh reads, and whether this refresh has rotated it."""

    id: UUID
    user_id: UUID
    generation: int
    version: int
    rotated_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    acr: str
    amr: str
    authenticated_at: datetime
    rotated: bool = field(kw_only=True)

    @property
    def authentication(self) -> Authentication:
        """Return how the session has authenticated its user, which a refresh does not change."""
        return stored_authentication(self.acr, self.amr, self.authenticated_at)


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """The user of a session, and their current roles."""

    username: str
    status: str
    roles: list[str]
    catalogue_version: int
    must_change_password: bool
    mfa_enabled: bool


class Refresh:
    """Exchanges refresh tokens."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        sessions: Sessions,
        refresh_tokens: RefreshTokens,
        token_pairs: TokenPairs,
        reuse_grace: timedelta,
        live: LiveSessions,
        count_ahead: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._sessions = sessions
        self._refresh_tokens = refresh_tokens
        self._token_pairs = token_pairs
        self._reuse_grace = reuse_grace
        self._live = live
        self._count_ahead = count_ahead

    def exchange(self, refresh_token: str, *, actor: Actor) -> TokenPair:
        """Return a new pair of tokens and reject this refresh token from now on.

        During a short grace period the immediate predecessor returns the same successor again, so
        that a client that lost the reply, or sent two requests at once, stays signed in. Any older
        token ends the session, which stays ended although the request is rejected (RFC 9700
        §4.14.2). A failover of the database ends no session: the predecessor stays valid for 15
        minutes if it is unknown whether the rotation was committed, and a session whose last
        rotations the database has lost continues from the newest token.
        Raises TokenInvalid, TokenExpired, TokenRevoked, RefreshTokenReused, OutcomeUnknown.
        """
        claims = self._refresh_tokens.verify(refresh_token)
        try:
            own, owner = self._rotate_fast_path(claims, actor) or self._rotate_locked(claims, actor)
        except OutcomeUnknown:
            self._live.rotation_in_doubt(
                claims.session_id, user_id=claims.user_id, generation=claims.generation
            )
            raise
        return self._token_pairs.issue(own, owner, catalogue_version=owner.catalogue_version)

    def _rotate_fast_path(
        self, claims: RefreshClaims, actor: Actor
    ) -> tuple[RotatedSession, SessionOwner] | None:
        """Rotate by one statement if the database supports it. None if it rotates nothing."""
        if not supports_writable_ctes():
            return None
        audit_row = self._recorder.audit.parameters(
            AuditAction.AUTH_REFRESH,
            actor=_as_owner(actor, claims),
            target=("session", claims.session_id),
        )
        with autocommit() as connection:
            return _rotate_in_one_statement(connection, self._parameters(claims), audit_row)

    def _rotate_locked(
        self, claims: RefreshClaims, actor: Actor
    ) -> tuple[RotatedSession, SessionOwner]:
        """Rotate under locks, or find out why not. Raises as `exchange` does."""
        reused = False
        with transaction() as session:
            connection = session.connection()
            owner = _lock_owner(connection, claims)
            own = _rotate(connection, self._parameters(claims)) or _lock_session(connection, claims)
            if own is not None and own.user_id != claims.user_id:
                raise TokenInvalid()
            if own is None or owner is None or owner.status != UserStatus.ACTIVE:
                raise TokenRevoked()
            if own.version > claims.session_version or not self._sessions.is_live(own):
                raise TokenRevoked()
            actor = replace(_as_owner(actor, claims), username=owner.username)
            if _is_ahead(claims, own):
                own = self._catch_up(connection, claims, own, actor)
            elif own.rotated:
                self._recorder.audit.record(
                    AuditAction.AUTH_REFRESH, actor=actor, target=("session", own.id)
                )
            elif not self._is_predecessor(claims, own):
                reused = True
                view = view_of(session, own.user_id, self._recorder.now())
                self._end_reused(own.id, view, actor)
        if reused:
            raise RefreshTokenReused()
        return own, owner

    def _is_predecessor(self, claims: RefreshClaims, own: RotatedSession) -> bool:
        if claims.generation != own.generation - 1:
            return False
        if self._reuse_grace > timedelta() and (
            self._recorder.now() <= own.rotated_at + self._reuse_grace
        ):
            return True
        return self._live.is_in_doubt(own.id, user_id=own.user_id, generation=claims.generation)

    def _catch_up(
        self,
        connection: Connection,
        claims: RefreshClaims,
        own: RotatedSession,
        actor: Actor,
    ) -> RotatedSession:
        """Continue a session from a token that is newer than its row, in the open transaction."""
        caught_up = replace(
            own,
            generation=max(own.generation, claims.generation) + 1,
            version=claims.session_version,
            rotated_at=self._recorder.now(),
            rotated=True,
        )
        connection.execute(
            _CATCH_UP,
            {
                "of_session": own.id,
                "next_generation": caught_up.generation,
                "next_version": caught_up.version,
                "now": caught_up.rotated_at,
            },
        )
        self._recorder.audit.record(
            AuditAction.AUTH_REFRESH,
            actor=actor,
            target=("session", own.id),
            details={"state_lost": True},
        )
        session_id, user_id, version = caught_up.id, caught_up.user_id, caught_up.version
        after_commit(
            lambda: self._live.session_changed(session_id, user_id=user_id, version=version)
        )
        after_commit(self._count_ahead)
        return caught_up

    def _end_reused(self, session_id: UUID, view: UserView, actor: Actor) -> None:
        """End the session of a reused token, in the open transaction."""
        self._recorder.audit.record(
            AuditAction.AUTH_REFRESH_REUSE_DETECTED,
            actor=actor,
            target=("session", session_id),
            outcome=Outcome.DENIED,
        )
        self._recorder.outbox.append(
            SessionEvent(
                type=EventType.SESSION_REUSE_DETECTED, user=view.facts, session_id=session_id
            ),
            actor=actor,
        )
        self._sessions.end(
            session_id, user=view.facts, actor=actor, reason=EndReason.REFRESH_REUSED
        )

    def _parameters(self, claims: RefreshClaims) -> dict[str, Any]:
        """Return the parameters of the statements that rotate."""
        now = self._recorder.now()
        return {
            "of_session": claims.session_id,
            "of_user": claims.user_id,
            "seen_generation": claims.generation,
            "seen_version": claims.session_version,
            "next_generation": claims.generation + 1,
            "now": now,
            "idle_since": now - self._sessions.idle_timeout,
        }


def _as_owner(actor: Actor, claims: RefreshClaims) -> Actor:
    return replace(actor, type=ActorType.USER, id=claims.user_id, session_id=claims.session_id)


def _is_ahead(claims: RefreshClaims, own: RotatedSession) -> bool:
    """Return whether a genuine token is newer than the row of its session.

    It was issued by a primary whose last writes were lost in a failover.
    """
    if own.rotated:
        return False
    return claims.generation > own.generation or claims.session_version > own.version


# The statements. Each is built once, because building one takes longer than running it.

_sessions = table_of(UserSession)
_session_columns = (
    _sessions.c.id,
    _sessions.c.user_id,
    _sessions.c.generation,
    _sessions.c.version,
    _sessions.c.rotated_at,
    _sessions.c.expires_at,
    _sessions.c.revoked_at,
    *authentication_columns(),
)
# The generation in the condition settles races: of concurrent refreshes, one finds it unchanged.
_ROTATE = (
    update(_sessions)
    .where(
        _sessions.c.id == bindparam("of_session"),
        _sessions.c.user_id == bindparam("of_user"),
        _sessions.c.generation == bindparam("seen_generation"),
        _sessions.c.version == bindparam("seen_version"),
        is_live(bindparam("now"), bindparam("idle_since")),
    )
    .values(
        generation=bindparam("next_generation"),
        rotated_at=bindparam("now"),
        last_used_at=bindparam("now"),
    )
    .returning(*_session_columns)
)
_LOCK_SESSION = (
    select(*_session_columns).where(_sessions.c.id == bindparam("of_session")).with_for_update()
)
_CATCH_UP = (
    update(_sessions)
    .where(_sessions.c.id == bindparam("of_session"))
    .values(
        generation=bindparam("next_generation"),
        version=bindparam("next_version"),
        rotated_at=bindparam("now"),
        last_used_at=bindparam("now"),
    )
)
# The user is locked before the session, as in every transaction that ends sessions.
_LOCK_OWNER = (
    select(
        users.c.username,
        users.c.status,
        role_names_column(users.c.id),
        catalogue_version().label("catalogue_version"),
        users.c.must_change_password,
        users.c.mfa_enabled,
    )
    .where(users.c.id == bindparam("of_user"))
    .with_for_update(read=True, of=users)
)
_active_owner = _LOCK_OWNER.where(users.c.status == UserStatus.ACTIVE).cte("owner")
# The subquery makes the update wait for the lock on the user before it reads the session.
_rotated = _ROTATE.where(select(_active_owner.c.username).scalar_subquery().is_not(None)).cte(
    "rotated"
)
_rotated_and_owner = _rotated.join(_active_owner, true())
_audited = audit_cte(_rotated_and_owner, actor_username=_active_owner.c.username).cte("audited")
_ROTATE_IN_ONE_STATEMENT = PreparedStatement(
    "rotate_session",
    select(*_rotated.c, *_active_owner.c).select_from(_rotated_and_owner).add_cte(_audited),
)


def _rotate_in_one_statement(
    connection: Connection, parameters: dict[str, Any], audit_row: dict[str, Any]
) -> tuple[RotatedSession, SessionOwner] | None:
    """Lock an active user, rotate the session and insert the audit row."""
    row = _ROTATE_IN_ONE_STATEMENT.one_or_none(connection, parameters | audit_row)
    if row is None:
        return None
    split = len(_session_columns)
    return RotatedSession(*row[:split], rotated=True), SessionOwner(*row[split:])


def _rotate(connection: Connection, parameters: dict[str, Any]) -> RotatedSession | None:
    """Rotate the session to its next generation if the token belongs to the current one."""
    row = connection.execute(_ROTATE, parameters).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=True)


def _lock_session(connection: Connection, claims: RefreshClaims) -> RotatedSession | None:
    """Return the locked session: the token does not belong to its current generation."""
    row = connection.execute(_LOCK_SESSION, {"of_session": claims.session_id}).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=False)


def _lock_owner(connection: Connection, claims: RefreshClaims) -> SessionOwner | None:
    """Return the user of a token, locked against changes, or None."""
    row = connection.execute(_LOCK_OWNER, {"of_user": claims.user_id}).one_or_none()
    return None if row is None else SessionOwner(*row)
