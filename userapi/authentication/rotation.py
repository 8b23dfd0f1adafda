"""Moving a session to its next generation: the statements behind a refresh, made once.

A refresh that goes well is one statement on PostgreSQL: it locks the user, moves the session on and
adds the audit row, and is a transaction by itself. That is one round trip in place of five. What
it does not move is looked at step by step, as every refresh is on SQLite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, bindparam, select, true, update

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.audit.service import record_beside
from userapi.authentication.tokens import RefreshClaims
from userapi.roles.service import catalogue_version
from userapi.sessions.models import UserSession, is_live
from userapi.sessions.status import role_names_column

_sessions: Table = UserSession.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class OwnSession:
    """What a refresh needs of its session, and whether it has just moved on by this refresh."""

    id: UUID
    user_id: UUID
    generation: int
    version: int
    rotated_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    rotated: bool = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose session it is, and what they may do at this moment."""

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
# One guarded statement: of many at once, one finds the generation that it has seen.
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
# Locked before the session, as everybody locks them who ends sessions.
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
_active = _HOLDER.where(users.c.status == UserStatus.ACTIVE).cte("holder")
# The sub-select makes the update wait for the user's lock before it looks at the session.
_moved = _ROTATE.where(select(_active.c.username).scalar_subquery().is_not(None)).cte("moved")
_both = _moved.join(_active, true())
_noted = record_beside(_both, actor_username=_active.c.username).cte("noted")
_AT_ONCE = select(*_moved.c, *_active.c).select_from(_both).add_cte(_noted)


def lock_holder(connection: Connection, claims: RefreshClaims) -> Holder | None:
    """Return the user that a token is of, locked against changes, or None."""
    row = connection.execute(_HOLDER, {"of_user": claims.user_id}).one_or_none()
    return None if row is None else Holder(*row)


def lock_session(connection: Connection, claims: RefreshClaims) -> OwnSession | None:
    """Return the session as it is, locked: the token is not of its present generation."""
    row = connection.execute(_PRESENT, {"of_session": claims.session_id}).one_or_none()
    return None if row is None else OwnSession(*row, rotated=False)


def rotate(
    connection: Connection, claims: RefreshClaims, *, now: datetime, idle: timedelta
) -> OwnSession | None:
    """Move the session to its next generation if the token is of the present one."""
    row = connection.execute(_ROTATE, _parameters(claims, now, idle)).one_or_none()
    return None if row is None else OwnSession(*row, rotated=True)


def rotate_at_once(
    connection: Connection,
    claims: RefreshClaims,
    *,
    now: datetime,
    idle: timedelta,
    noted: Mapping[str, Any],
) -> tuple[OwnSession, Holder] | None:
    """Do the same for an active user, with the audit row that `noted` says, by one statement."""
    parameters = {**_parameters(claims, now, idle), **noted}
    row = connection.execute(_AT_ONCE, parameters).one_or_none()
    if row is None:
        return None
    own = len(_own_columns)
    return OwnSession(*row[:own], rotated=True), Holder(*row[own:])


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
