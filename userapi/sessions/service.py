"""Starting, listing and ending sessions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import NotFound
from userapi.events.catalogue import EventType, SessionEvent, UserFacts
from userapi.infrastructure.database import (
    after_commit,
    new_id,
    reading,
    require_transaction,
    table_of,
    transaction,
)
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PWD, Authentication, authenticated_by
from userapi.sessions.limits import SessionEnds, SessionLimits
from userapi.sessions.models import SessionKind, UserSession, is_live
from userapi.sessions.pending_sign_ins import end_sign_ins_of
from userapi.sessions.status import LiveSessions, SessionOfUser
from userapi.sessions.views import SessionView, all_sessions, session_view

USER_AGENT_LENGTH = 512

_table = table_of(UserSession)
_INSERT = insert(_table)


class SessionNotFound(NotFound):
    """The user has no live session with that id."""

    title = "This session does not exist."


class EndReason(StrEnum):
    """Why a session ended."""

    ACCOUNT_DELETED = "account_deleted"
    ACCOUNT_SUSPENDED = "account_suspended"
    CAP_REACHED = "cap_reached"
    FACTOR_REMOVED = "factor_removed"
    LOGOUT = "logout"
    MFA_ENABLED = "mfa_enabled"
    MFA_RESET = "mfa_reset"
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    REFRESH_REUSED = "refresh_reused"
    REVOKED = "revoked"


class Sessions:
    """Starts, lists and ends sessions. Only rows of `user_sessions` decide who is signed in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        live: LiveSessions,
        limits: SessionLimits,
    ) -> None:
        self._recorder = recorder
        self._live = live
        self._limits = limits

    def start(
        self,
        user: UserFacts,
        *,
        actor: Actor,
        remember_me: bool = False,
        kind: SessionKind = SessionKind.API,
        authentication: Authentication | None = None,
    ) -> UserSession:
        """Start a session in the open transaction, which holds the lock on the user's row.

        `authentication` is how the user has signed in; None means by the password, now. Above the
        cap the oldest sessions end.
        """
        session = require_transaction()
        surplus = session.execute(
            self._live_rows(user.id)
            .order_by(_table.c.created_at.desc(), _table.c.id.desc())
            .offset(self._limits.max_per_user - 1)
        ).all()
        self._end(surplus[::-1], user=user, actor=actor, reason=EndReason.CAP_REACHED)
        proved = authentication or authenticated_by(PWD, at=self._recorder.now())
        started = self._new_row(
            user.id, actor=actor, remember_me=remember_me, kind=kind, now=proved.authenticated_at
        )
        started |= proved.columns
        session.execute(_INSERT, started)
        self._recorder.outbox.append(
            SessionEvent(
                type=EventType.SESSION_CREATED,
                user=user,
                session_id=started["id"],
                acr=proved.acr,
                amr=proved.amr,
            ),
            actor=actor,
        )
        return UserSession(**started)

    def keep_alive(self, session_id: UUID) -> None:
        """Record that a browser's session, which has no refresh tokens, is in use."""
        now = self._recorder.now()
        with transaction() as session:
            session.execute(
                update(_table)
                .where(_table.c.id == session_id, _table.c.revoked_at.is_(None))
                .values(rotated_at=now, last_used_at=now)
            )

    @property
    def idle_timeout(self) -> timedelta:
        """Return how long a session may go without a refresh."""
        return self._limits.idle_timeout

    def is_live(self, session: SessionEnds) -> bool:
        """Return whether a session has neither ended, expired, nor been idle for too long."""
        return self._limits.is_live(session, self._recorder.now())

    def list_of(self, user_id: UUID, *, current: UUID | None = None) -> list[SessionView]:
        """Return a user's live sessions, most recently used first."""
        query = self._live_rows(user_id).order_by(_table.c.last_used_at.desc(), _table.c.id)
        with reading() as connection:
            rows = connection.execute(query).all()
        return [session_view(row, current) for row in rows]

    def all_of(self, user_id: UUID) -> Iterator[dict[str, Any]]:
        """Return every stored session of a user, including ended ones, oldest first.

        Memory does not grow with their number. The first ones are read immediately, so that an
        unavailable database is an error before anything is sent.
        """
        return all_sessions(user_id)

    def list_live(
        self, *, user_id: UUID | None = None, limit: int
    ) -> list[tuple[UUID, SessionView]]:
        """Return live sessions with the ids of their users, most recently used first."""
        query = self._live_rows(user_id).order_by(_table.c.last_used_at.desc(), _table.c.id)
        with reading() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [(row.user_id, session_view(row)) for row in rows]

    def owner_of(self, session_id: UUID) -> UUID:
        """Return the id of the session's user. Raises SessionNotFound."""
        with reading() as connection:
            owner: UUID | None = connection.scalar(
                select(_table.c.user_id).where(_table.c.id == session_id)
            )
        if owner is None:
            raise SessionNotFound()
        return owner

    def end(self, session_id: UUID, *, user: UserFacts, actor: Actor, reason: EndReason) -> None:
        """End one live session of the user. Raises SessionNotFound."""
        rows = self._locked(self._live_rows(user.id).where(_table.c.id == session_id))
        if not rows:
            raise SessionNotFound()
        self._end(rows, user=user, actor=actor, reason=reason)

    def end_all(
        self, *, user: UserFacts, actor: Actor, reason: EndReason, keep: UUID | None = None
    ) -> int:
        """End all live sessions of the user, except `keep`; return how many ended.

        Without `keep`, sign-ins whose second step is missing end, too.
        """
        query = self._live_rows(user.id)
        if keep is None:
            end_sign_ins_of([user.id])
        else:
            query = query.where(_table.c.id != keep)
        rows = self._locked(query)
        self._end(rows, user=user, actor=actor, reason=reason)
        return len(rows)

    def end_all_of(
        self, owners: Mapping[UUID, UserFacts], *, actor: Actor, reason: EndReason
    ) -> int:
        """End all live sessions of several users, whose rows the caller locked; return how many.

        Their sign-ins whose second step is missing end, too.
        """
        end_sign_ins_of(owners)
        rows = self._locked(self._live_rows(None).where(_table.c.user_id.in_(owners)))
        self._end_of(rows, owners, actor=actor, reason=reason)
        return len(rows)

    def users_with_live_sessions(self, *, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """Return users with live sessions, ordered by id, and the number of their sessions."""
        now = self._recorder.now()
        query = (
            select(_table.c.user_id, func.count())
            .where(is_live(now, now - self._limits.idle_timeout))
            .group_by(_table.c.user_id)
            .order_by(_table.c.user_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_table.c.user_id > after)
        with reading() as connection:
            return [(row.user_id, row[1]) for row in connection.execute(query)]

    def count_live(self) -> int:
        """Return how many sessions are live."""
        with reading() as connection:
            return self.count_live_now(connection)

    def count_live_now(self, connection: Connection) -> int:
        """Return how many sessions are live, read by `connection`."""
        now = self._recorder.now()
        query = select(func.count()).where(is_live(now, now - self._limits.idle_timeout))
        return int(connection.execute(query).scalar_one())

    def _new_row(
        self, user_id: UUID, *, actor: Actor, remember_me: bool, kind: SessionKind, now: datetime
    ) -> dict[str, Any]:
        return {
            "id": new_id(),
            "user_id": user_id,
            "kind": kind,
            "generation": 1,
            "version": 1,
            "rotated_at": now,
            "remember_me": remember_me,
            "ip_address": actor.ip_address,
            "user_agent": (actor.user_agent or "")[:USER_AGENT_LENGTH] or None,
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + self._limits.lifetime_of(remember_me=remember_me),
        }

    def _live_rows(self, user_id: UUID | None) -> Select[Any]:
        """Return the query for the live sessions of one user, or of all."""
        now = self._recorder.now()
        query = select(_table).where(is_live(now, now - self._limits.idle_timeout))
        return query if user_id is None else query.where(_table.c.user_id == user_id)

    def _locked(self, query: Select[Any]) -> Sequence[Row[Any]]:
        return require_transaction().execute(query.order_by(_table.c.id).with_for_update()).all()

    def _end(
        self, rows: Sequence[Row[Any]], *, user: UserFacts, actor: Actor, reason: EndReason
    ) -> None:
        self._end_of(rows, {user.id: user}, actor=actor, reason=reason)

    def _end_of(
        self,
        rows: Sequence[Row[Any]],
        owners: Mapping[UUID, UserFacts],
        *,
        actor: Actor,
        reason: EndReason,
    ) -> None:
        if not rows:
            return
        session = require_transaction()
        session.execute(
            update(_table)
            .where(_table.c.id.in_([row.id for row in rows]))
            .values(
                revoked_at=self._recorder.now(), revoked_reason=reason, version=_table.c.version + 1
            )
        )
        self._recorder.audit.record_all(
            AuditAction.SESSION_REVOKED,
            actor=actor,
            about={
                ("session", row.id): {"reason": reason, "user_id": str(row.user_id)} for row in rows
            },
        )
        self._recorder.outbox.append_all(
            [
                SessionEvent(
                    type=EventType.SESSION_REVOKED,
                    user=owners[row.user_id],
                    session_id=row.id,
                    reason=reason,
                )
                for row in rows
            ],
            actor=actor,
        )
        ended = [SessionOfUser(row.id, row.user_id) for row in rows]
        after_commit(lambda: self._live.sessions_ended(ended))
