"""Whether a session is live, and what its user may do: read by every request with a token."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from cachetools import TTLCache
from sqlalchemy import JSON, ColumnElement, Table, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from userapi.clock import Clock
from userapi.infrastructure.database import reading, table_of
from userapi.infrastructure.rate_counters import Condition
from userapi.infrastructure.redis_commands import Command
from userapi.roles.graph import catalogue_version
from userapi.roles.models import UserRole
from userapi.sessions.authentication_level import Authentication, stored_authentication
from userapi.sessions.models import UserSession, authentication_columns

# How long a client may repeat a refresh whose reply was lost with the database connection.
IN_DOUBT_SECONDS = 15 * 60
MAX_IN_DOUBT = 50_000

_sessions = table_of(UserSession)
_user_roles = table_of(UserRole)


class json_names(FunctionElement[list[str]]):  # noqa: N801 - a function of SQL
    """The values of a column as one JSON array."""

    type = JSON()
    name = "json_names"
    inherit_cache = True


@compiles(json_names)
def _json_names_sqlite(element: json_names, compiler: SQLCompiler, **kwargs: object) -> str:
    return f"json_group_array({compiler.process(element.clauses, **kwargs)})"


@compiles(json_names, "postgresql")
def _json_names_postgresql(element: json_names, compiler: SQLCompiler, **kwargs: object) -> str:
    return f"json_agg({compiler.process(element.clauses, **kwargs)})"


def role_names_column(user_id: ColumnElement[UUID]) -> ColumnElement[list[str]]:
    """Return a scalar subquery for the names of a user's roles as a list, unordered."""
    return (
        select(json_names(_user_roles.c.role_name))
        .where(_user_roles.c.user_id == user_id)
        .scalar_subquery()
        .label("roles")
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """A user as responses show them: JSON text, and the entity tag without quotes."""

    text: bytes
    etag: str


class Profiles(Protocol):
    """The table of users and their profiles. `accounts` implements it."""

    @property
    def users(self) -> Table:
        """The table of users."""
        ...

    @property
    def columns(self) -> Sequence[ColumnElement[Any]]:
        """The columns of a profile, including the names of the roles as `roles`."""
        ...

    def profile(self, row: Any, now: datetime) -> Profile | None:
        """Return the profile of a row with these columns; None if it cannot be cached."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """What a request reads about the session of its token.

    The profile saves a query in requests for the user of the session.
    """

    session_id: UUID
    user_id: UUID
    username: str
    roles: tuple[str, ...]
    session_version: int
    access_version: int
    catalogue_version: int
    must_change_password: bool
    mfa_enabled: bool
    authentication: Authentication
    ends_at: datetime
    profile: Profile | None


class SessionOfUser(NamedTuple):
    """The id of a session and of its user."""

    session_id: UUID
    user_id: UUID


class LiveSessions(Protocol):
    """Finds live sessions. Callers report each change of a session, a user or the roles."""

    def lookup(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return the command whose reply `find` accepts; None if Redis is not used."""
        ...

    def liveness(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Condition:
        """Return what Redis holds, after the lookup, for a session that is live."""
        ...

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session, or None if it has ended or never existed.

        `user_id` and `session_version` are those of the token; the caller compares them with those
        of the session. `reply` is the reply of Redis to `lookup`.
        """
        ...

    def session_changed(self, session_id: UUID, *, user_id: UUID, version: int) -> None:
        """Report, after the commit, that a session has a new version."""
        ...

    def sessions_ended(self, sessions: Sequence[SessionOfUser]) -> None:
        """Report, after the commit, that sessions have ended."""
        ...

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Report, after the commit, that the profile or the rights of a user have changed."""
        ...

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Report, after the commit, that the permissions of a role have changed."""
        ...

    def rotation_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> None:
        """Report that it is unknown whether a session was rotated from this generation."""
        ...

    def is_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> bool:
        """Return whether that was reported within `IN_DOUBT_SECONDS`, by any process if it can."""
        ...


class DatabaseLiveSessions:
    """Reads the database each time: one query per request."""

    def __init__(self, clock: Clock, profiles: Profiles, *, idle_timeout: timedelta) -> None:
        self._clock = clock
        self._profiles = profiles
        self._idle = idle_timeout
        self._in_doubt: TTLCache[UUID, int] = TTLCache(MAX_IN_DOUBT, IN_DOUBT_SECONDS)
        self._lock = threading.Lock()
        users = profiles.users
        self._query = (
            select(
                *profiles.columns,
                users.c.access_version,
                _sessions.c.id.label("session_id"),
                _sessions.c.version.label("session_version"),
                _sessions.c.expires_at,
                _sessions.c.rotated_at,
                *authentication_columns(),
                catalogue_version().label("catalogue_version"),
            )
            .select_from(_sessions.join(users, users.c.id == _sessions.c.user_id))
            .where(
                _sessions.c.id == bindparam("session_id"),
                _sessions.c.revoked_at.is_(None),
                users.c.status == "active",
            )
        )

    def lookup(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return None: Redis is not used."""
        return None

    def liveness(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Condition:
        """Return a condition that Redis never decides."""
        return Condition("", met="", undecided="")

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session, or None if it has ended or never existed."""
        with reading() as connection:
            row = connection.execute(self._query, {"session_id": session_id}).one_or_none()
        if row is None:
            return None
        ends_at, now = min(row.expires_at, row.rotated_at + self._idle), self._clock.now()
        if ends_at <= now:
            return None
        return LiveSession(
            session_id=row.session_id,
            user_id=row.id,
            username=row.username,
            roles=tuple(sorted(row.roles or ())),
            session_version=row.session_version,
            access_version=row.access_version,
            catalogue_version=row.catalogue_version,
            must_change_password=row.must_change_password,
            mfa_enabled=row.mfa_enabled,
            authentication=stored_authentication(row.acr, row.amr, row.authenticated_at),
            ends_at=ends_at,
            profile=self._profiles.profile(row, now),
        )

    def session_changed(self, session_id: UUID, *, user_id: UUID, version: int) -> None:
        """Do nothing: the next lookup reads the row."""

    def sessions_ended(self, sessions: Sequence[SessionOfUser]) -> None:
        """Do nothing: the next lookup reads the rows."""

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Do nothing: the next lookup reads the row."""

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Do nothing: the next lookup reads the row."""

    def rotation_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> None:
        """Store this in the memory of the process."""
        with self._lock:
            self._in_doubt[session_id] = generation

    def is_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> bool:
        """Return whether it was reported in this process."""
        with self._lock:
            return self._in_doubt.get(session_id) == generation
