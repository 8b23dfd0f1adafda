"""The statements of a refresh, each built once: building one takes longer than running it.

On PostgreSQL one statement with data-modifying CTEs does everything; the others do it step by step.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, true, update

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.audit.service import audit_cte
from userapi.authentication.token_claims import RefreshClaims
from userapi.infrastructure.database import PreparedStatement, table_of
from userapi.roles.graph import catalogue_version
from userapi.sessions.authentication_level import Authentication, stored_authentication
from userapi.sessions.models import UserSession, authentication_columns, is_live
from userapi.sessions.status import role_names_column


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
# The generation in the condition resolves races: of concurrent refreshes, one finds it unchanged.
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


def rotate_in_one_statement(
    connection: Connection, parameters: dict[str, Any], audit_row: dict[str, Any]
) -> tuple[RotatedSession, SessionOwner] | None:
    """Lock an active user, rotate the session and insert the audit row."""
    row = _ROTATE_IN_ONE_STATEMENT.one_or_none(connection, parameters | audit_row)
    if row is None:
        return None
    split = len(_session_columns)
    return RotatedSession(*row[:split], rotated=True), SessionOwner(*row[split:])


def rotate(connection: Connection, parameters: dict[str, Any]) -> RotatedSession | None:
    """Rotate the session to its next generation if the token belongs to the current one."""
    row = connection.execute(_ROTATE, parameters).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=True)


def catch_up(connection: Connection, session: RotatedSession) -> None:
    """Store the generation and version of a session whose last rotations were lost."""
    connection.execute(
        _CATCH_UP,
        {
            "of_session": session.id,
            "next_generation": session.generation,
            "next_version": session.version,
            "now": session.rotated_at,
        },
    )


def lock_session(connection: Connection, claims: RefreshClaims) -> RotatedSession | None:
    """Return the locked session: the token does not belong to its current generation."""
    row = connection.execute(_LOCK_SESSION, {"of_session": claims.session_id}).one_or_none()
    return None if row is None else RotatedSession(*row, rotated=False)


def lock_owner(connection: Connection, claims: RefreshClaims) -> SessionOwner | None:
    """Return the user of a token, locked against changes, or None."""
    row = connection.execute(_LOCK_OWNER, {"of_user": claims.user_id}).one_or_none()
    return None if row is None else SessionOwner(*row)
