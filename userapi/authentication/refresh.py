"""Refresh: exchanges a refresh token for a new pair of tokens. Each token is accepted once.

On PostgreSQL, one statement locks the user, rotates the session to its next generation and inserts
the audit row: one round trip instead of five. If that statement changes no row, and always on
SQLite, the locked path decides step by step. Both paths write the same rows, which
tests/integration/test_refresh_parity.py checks.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from userapi.accounts.models import UserStatus
from userapi.accounts.views import UserView
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import view_of
from userapi.authentication.refusals import TokenInvalid, TokenRefused, TokenRevoked
from userapi.authentication.session_rotation import (
    RotatedSession,
    SessionOwner,
    catch_up,
    lock_owner,
    lock_session,
    rotate,
    rotate_in_one_statement,
)
from userapi.authentication.token_claims import RefreshClaims
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.authentication.tokens import RefreshTokens
from userapi.errors import OutcomeUnknown
from userapi.events.catalogue import EventType, SessionEvent
from userapi.infrastructure.database import (
    after_commit,
    autocommit,
    supports_writable_ctes,
    transaction,
)
from userapi.recorder import Recorder
from userapi.sessions.service import EndReason, Sessions
from userapi.sessions.status import LiveSessions


class RefreshTokenReused(TokenRefused):
    """An old refresh token was sent: it may have been stolen, so the session has ended."""

    code = "refresh_token_reused"
    title = "This refresh token was used before. The session has ended."


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
        that a client that lost the reply, or sent two concurrent requests, stays signed in. Any
        older token ends the session, which stays ended although the request is rejected (RFC 9700
        §4.14.2). A failover of the database ends no session: the predecessor stays valid for 15
        minutes if it is unknown whether the rotation was committed, and a session whose last
        rotations the database has lost continues from the newest token. Raises TokenInvalid,
        TokenExpired, TokenRevoked, RefreshTokenReused, OutcomeUnknown.
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
            return rotate_in_one_statement(connection, self._parameters(claims), audit_row)

    def _rotate_locked(
        self, claims: RefreshClaims, actor: Actor
    ) -> tuple[RotatedSession, SessionOwner]:
        """Rotate under locks. Raises what `exchange` raises."""
        reused = False
        with transaction() as session:
            connection = session.connection()
            owner = lock_owner(connection, claims)
            own = rotate(connection, self._parameters(claims)) or lock_session(connection, claims)
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
        catch_up(connection, caught_up)
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
