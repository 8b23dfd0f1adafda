"""Starting a session for somebody whose password was right: the statements of it, made once.

A log-in that goes well is one statement on PostgreSQL, and a transaction by itself. It counts on
the user as they were read a moment before: whoever changes them, or logs in as them, counts
`access_version` up, and then the statement finds nobody and changes nothing. That is looked at step
by step, as is what needs more than this, and every log-in on SQLite.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal,
    select,
    true,
    update,
)

from userapi.accounts.views import ALL_USERS, UserView, identifying_column, user_view, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail, record_beside
from userapi.database import insert_beside, one_statement, parameters_beside
from userapi.events.catalogue import EventType, SessionEvent, UserFacts
from userapi.events.outbox import Outbox, append_beside, waking_the_worker
from userapi.lockout.service import Lockout, cleared_beside, other_lock
from userapi.roles.service import catalogue_version
from userapi.sessions.models import SessionKind, UserSession, is_live
from userapi.sessions.service import EndReason, Sessions

# In place of the id that the statement finds itself.
NOT_KNOWN_YET = UUID(int=0)

_sessions: Table = UserSession.__table__  # type: ignore[assignment]


@dataclass(slots=True)
class Candidate:
    """The account that an identifier names, before the password is known to be right.

    No more is read of it by then than of nobody: the time that it takes must not tell.
    """

    id: UUID
    password_hash: str | None
    needs_rehash: bool = False


@dataclass(frozen=True, slots=True)
class Present:
    """A user as they are once the password is known to be right."""

    row: Row[Any]

    @property
    def access_version(self) -> int:
        """Return how often the user has changed, or logged in."""
        found: int = self.row.access_version
        return found

    @property
    def identifiers(self) -> tuple[str, str]:
        """Return the name and the address, as both are compared."""
        return self.row.username, self.row.email_normalized

    def view(self, now: datetime) -> UserView:
        """Return the user as others see them."""
        return user_view(self.row, now)


@dataclass(frozen=True, slots=True)
class Started:
    """A session that has started, and what only the statement that started it knows."""

    session: UserSession
    access_version: int
    locked_until: datetime | None
    catalogue_version: int
    ended: tuple[UUID, int] | None


_BY_IDENTIFIER = {
    column: select(users.c.id, users.c.password_hash).where(column == bindparam("identifier"))
    for column in (users.c.username, users.c.email_normalized)
}
_PRESENT = ALL_USERS.add_columns(users.c.email_normalized, users.c.access_version).where(
    users.c.id == bindparam("of_user")
)


def find_candidate(connection: Connection, identifier: str) -> Candidate | None:
    """Return the account that a canonical identifier names, or None."""
    query = _BY_IDENTIFIER[identifying_column(identifier)]
    row = connection.execute(query, {"identifier": identifier}).one_or_none()
    return None if row is None else Candidate(*row)


def find_present(connection: Connection, candidate: Candidate) -> Present | None:
    """Return the user whose password was right, or None if they are gone."""
    row = connection.execute(_PRESENT, {"of_user": candidate.id}).one_or_none()
    return None if row is None else Present(row)


_NEW_SESSION = (
    "id",
    "user_id",
    "kind",
    "generation",
    "version",
    "rotated_at",
    "remember_me",
    "ip_address",
    "user_agent",
    "created_at",
    "last_used_at",
    "expires_at",
)
_FOR_ENDED = "ended_"


def _starting() -> Select[Any]:
    # Live sessions beyond those that may stay. With one it goes, with more it is no case for here.
    surplus = (
        select(_sessions.c.id)
        .where(
            _sessions.c.user_id == bindparam("of_user"),
            is_live(bindparam("now"), bindparam("idle_since")),
        )
        .order_by(_sessions.c.created_at.desc(), _sessions.c.id.desc())
        .offset(bindparam("may_stay"))
        .cte("surplus")
    )
    holder = (
        update(users)
        .where(
            users.c.id == bindparam("of_user"),
            # Counts every change, so what was read of the user holds; and of two log-ins at once
            # one finds nobody, so what was read of the sessions holds too.
            users.c.access_version == bindparam("seen_access"),
            # What was checked is what counts, also where somebody sets a hash past the service.
            users.c.password_hash == bindparam("checked_hash"),
            select(func.count()).select_from(surplus).scalar_subquery() <= 1,
        )
        .values(
            access_version=users.c.access_version + 1,
            last_login_at=bindparam("now"),
            locked_until=other_lock(),
        )
        .returning(users.c.access_version, users.c.locked_until)
        .cte("holder")
    )
    ended = (
        update(_sessions)
        .where(
            _sessions.c.id.in_(select(surplus.c.id).join(holder, true())),
            _sessions.c.revoked_at.is_(None),
        )
        .values(
            revoked_at=bindparam("now"),
            revoked_reason=EndReason.CAP_REACHED,
            version=_sessions.c.version + 1,
        )
        .returning(_sessions.c.id, _sessions.c.version)
        .cte("ended")
    )
    ended_id = cast(ended.c.id, Text)
    told_of_end = (
        append_beside(ended, prefix=_FOR_ENDED, session_id=ended_id)
        .returning(literal(1).label("one"))
        .cte("told_of_end")
    )
    # Counted only so that the end is told before the beginning.
    ends = select(func.count().label("ends")).select_from(told_of_end).subquery("ends")
    return (
        select(*holder.c, catalogue_version(), *ended.c, waking_the_worker())
        .select_from(holder.outerjoin(ended, true()))
        .add_cte(cleared_beside(holder).cte("cleared"))
        .add_cte(insert_beside(_sessions, holder, names=_NEW_SESSION).cte("started"))
        .add_cte(append_beside(holder.join(ends, ends.c.ends >= 0)).cte("told"))
        .add_cte(record_beside(ended, prefix=_FOR_ENDED, target_id=ended_id).cte("noted_end"))
        .add_cte(record_beside(holder).cte("noted"))
    )


_START = _starting()


class StartsAtOnce:
    """Starts sessions by that one statement."""

    def __init__(
        self, *, sessions: Sessions, lockout: Lockout, outbox: Outbox, audit: AuditTrail
    ) -> None:
        self._sessions = sessions
        self._lockout = lockout
        self._outbox = outbox
        self._audit = audit

    def start(
        self,
        present: Present,
        user: UserFacts,
        *,
        checked_hash: str | None,
        key: str,
        actor: Actor,
        remember_me: bool,
        kind: SessionKind,
    ) -> Started | None:
        """Start a session of an active user, and end the oldest if there are too many.

        None, and nothing has changed, if the user has, or if several sessions have to end. `key` is
        the one that the try was counted under.
        """
        other_keys = {self._lockout.key_of(name) for name in present.identifiers} - {key}
        if len(other_keys) != 1:
            return None  # Neither name nor address is any longer what was tried.
        row = self._sessions.new(user.id, actor=actor, remember_me=remember_me, kind=kind)
        session = UserSession(**row)
        parameters = {
            "of_user": user.id,
            "seen_access": present.access_version,
            "checked_hash": checked_hash,
            "now": session.created_at,
            "idle_since": session.created_at - self._sessions.idle_timeout,
            "may_stay": self._sessions.cap - 1,
            "cleared_key": key,
            "other_key": other_keys.pop(),
            **parameters_beside(_sessions, row),
            **self._beginning(user, session.id, actor),
            **self._end(user, actor),
        }
        with one_statement() as connection:
            found = connection.execute(_START, parameters).one_or_none()
        if found is None:
            return None
        access_version, locked_until, catalogue, ended_id, ended_version, _ = found
        ended = None if ended_id is None else (ended_id, ended_version)
        return Started(session, access_version, locked_until, catalogue, ended)

    def _beginning(self, user: UserFacts, session_id: UUID, actor: Actor) -> dict[str, Any]:
        event = SessionEvent(type=EventType.SESSION_CREATED, user=user, session_id=session_id)
        return self._outbox.parameters(event, actor=actor) | self._audit.parameters(
            AuditAction.AUTH_LOGIN,
            actor=replace(actor, session_id=session_id),
            target=("user", user.id),
        )

    def _end(self, user: UserFacts, actor: Actor) -> dict[str, Any]:
        reason = EndReason.CAP_REACHED
        event = SessionEvent(
            type=EventType.SESSION_REVOKED, user=user, session_id=NOT_KNOWN_YET, reason=reason
        )
        return self._outbox.parameters(
            event, actor=actor, prefix=_FOR_ENDED
        ) | self._audit.parameters(
            AuditAction.SESSION_REVOKED,
            actor=actor,
            target=("session", NOT_KNOWN_YET),
            details={"reason": reason, "user_id": str(user.id)},
            prefix=_FOR_ENDED,
        )
