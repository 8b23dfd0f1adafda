"""Rotating a session to its next generation: the statements of a refresh, built once.

On PostgreSQL a successful refresh is one statement: it locks the user, rotates the session and
inserts the audit row, as a transaction of its own. That is one round trip instead of five. When the
statement rotates nothing, and on SQLite, a refresh locks the rows and decides step by step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, true, update

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.audit.service import audit_cte
from userapi.authentication.token_claims import RefreshClaims
from userapi.infrastructure.database import table_of
from userapi.roles.service import catalogue_version
from userapi.sessions.models import UserSession, is_live
from userapi.sessions.status import role_names_column

_sessions = table_of(UserSession)


@dataclass(frozen=True, slots=True)
class RotatedSession:
    """The columns of a session that a refresh needs, and whether this refresh has rotated it."""

    id: UUID
    user_id: UUID
    generation: int
    version: int
    rotated_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    rotated: bool = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """The user of a session, and their current roles."""

    username: str
    status: str
    roles: list[str]
    catalogue_version: int
    must_change_password: bool


_own_columns = (
    _sessions.c.id,
    _sessions.c.user_id,
    _sessions.c.generation,
    _sessions.c.version,
    _sessions.c.rotated_at,
    _sessions.c.expires_at,
    _sessions.c.revoked_at,
)
_PRESENT = select(*_own_columns).where(_sessions.c.id == bindparam("of_session")).with_for_update()
# One guarded statement: of many concurrent refreshes, one finds the generation that it has seen.
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
    .returning(*_own_columns)
)
# The user is locked before the session, in the same order as where sessions end.
_HOLDER = (
    select(
        users.c.username,
        users.c.status,
        role_names_column(users.c.id),
        catalogue_version().label("catalogue_version"),
        users.c.must_change_password,
    )
    .where(users.c.id == bindparam("of_user"))
    .with_for_update(read=True, of=users)
)
_active = _HOLDER.where(users.c.status == UserStatus.ACTIVE).cte("owner")
# The sub-select makes the update wait for the user's lock before it reads the session.
_moved = _ROTATE.where(select(_active.c.username).scalar_subquery().is_not(None)).cte("moved")
_both = _moved.join(_active, true())
_noted = audit_cte(_both, actor_username=_active.c.username).cte("noted")
_AT_ONCE = select(*_moved.c, *_active.c).select_from(_both).add_cte(_noted)


def lock_owner(connection: Connection, claims: RefreshClaims) -> SessionOwner | None:
    """Return the user of a token, locked against changes, or None."""
    row = connection.execute(_HOLDER, {"of_user": claims.user_id}).one_or_none()
    return None if row is None else SessionOwner(*row)


def lock_session(connection: Connection, claims: RefreshClaims) -> RotatedSession | None:
    """Return the locked session: the token does not belong to its current generation."""
    row = connection.execute(_PRESENT, {"of_session": claims.session_id}).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=False)


def rotate(
    connection: Connection, claims: RefreshClaims, *, now: datetime, idle: timedelta
) -> RotatedSession | None:
    """Rotate the session to its next generation if the token belongs to the current one."""
    row = connection.execute(_ROTATE, _parameters(claims, now, idle)).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=True)


def rotate_in_one_statement(
    connection: Connection,
    claims: RefreshClaims,
    *,
    now: datetime,
    idle: timedelta,
    noted: Mapping[str, Any],
) -> tuple[RotatedSession, SessionOwner] | None:
    """Lock an active user, rotate the session and insert the audit row `noted`."""
    parameters = {**_parameters(claims, now, idle), **noted}
    row = connection.execute(_AT_ONCE, parameters).one_or_none()
    if row is None:
        return None
    own = len(_own_columns)
    return RotatedSession(*row[:own], rotated=True), SessionOwner(*row[own:])


def _parameters(claims: RefreshClaims, now: datetime, idle: timedelta) -> dict[str, Any]:
    return {
        "of_session": claims.session_id,
        "of_user": claims.user_id,
        "seen_generation": claims.generation,
        "seen_version": claims.session_version,
        "next_generation": claims.generation + 1,
        "now": now,
        "idle_since": now - idle,
    }
