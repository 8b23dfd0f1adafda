"""A user as readers see it, read in one query and without the ORM."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, bindparam, select
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.events.catalogue import UserFacts
from userapi.infrastructure.database import table_of
from userapi.sessions.status import Profile, role_names_column

users = table_of(User)

# A longer profile is not kept with the live session, where it would be sent with every request.
MAX_PROFILE_BYTES = 4096


@dataclass(slots=True)
class UserView:
    """All that the service shows of a user; never the password hash. In the order of `ALL_USERS`.

    Its public fields are the answer as it stands: nothing between this value and the JSON text.
    Nobody changes one; to have that enforced would make a list of 50 a tenth slower.
    """

    id: UUID
    username: str
    email: str
    email_verified: bool
    first_name: str | None
    last_name: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    avatar_url: str | None
    status: str
    status_reason: str | None
    suspended_until: datetime | None
    roles: list[str]
    metadata: dict[str, Any]
    must_change_password: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    locked_until: datetime | None
    _version: int

    @property
    def facts(self) -> UserFacts:
        """Return what events tell of this user."""
        return UserFacts(
            id=self.id,
            username=self.username,
            email=self.email,
            status=self.status,
            roles=self.roles,
        )

    @property
    def public(self) -> dict[str, Any]:
        """Return the fields that are shown, for an answer that holds more than them."""
        return {name: getattr(self, name) for name in self.__slots__ if name[0] != "_"}

    @property
    def etag(self) -> str:
        """Return the entity tag of this state (RFC 9110 §8.8.3), without quotes."""
        return str(self._version)


# All columns that a `UserView` has, in its order. Made once: to make the query takes longer than to
# run it.
ALL_USERS: Select[Any] = select(
    users.c.id,
    users.c.username,
    users.c.email,
    users.c.email_verified,
    users.c.first_name,
    users.c.last_name,
    users.c.phone,
    users.c.locale,
    users.c.timezone,
    users.c.avatar_url,
    users.c.status,
    users.c.status_reason,
    users.c.suspended_until,
    role_names_column(users.c.id),
    users.c.attributes,
    users.c.must_change_password,
    users.c.created_at,
    users.c.updated_at,
    users.c.last_login_at,
    users.c.locked_until,
    users.c.version,
)
COLUMNS = len(ALL_USERS.selected_columns)
_BY_ID = ALL_USERS.where(users.c.id == bindparam("user_id"))


def user_view(row: Row[Any], now: datetime) -> UserView:
    """Return a row that begins as `ALL_USERS` does; a lock that has ended is not shown.

    By position: to look 21 names up in each row was a third of the work of a list.
    """
    view = UserView(*row[:COLUMNS])
    view.roles = sorted(view.roles or ())
    if view.locked_until is not None and view.locked_until <= now:
        view.locked_until = None
    return view


class ShownUsers:
    """Profiles for live sessions, which stand below this subject."""

    users = users
    columns = tuple(ALL_USERS.selected_columns)

    def profile(self, row: Any, now: datetime) -> Profile | None:
        """Return what is shown of a user; None for what is long, or changes as a lock ends."""
        view = user_view(row, now)
        text = as_json_text(view)
        if view.locked_until is not None or len(text) > MAX_PROFILE_BYTES:
            return None
        return Profile(text, view.etag)


def as_json_text(value: object) -> bytes:
    """Return a frozen value as answers show it: its public fields, times in UTC with Z."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def find_user(connection: Connection | Session, user_id: UUID, now: datetime) -> UserView | None:
    """Return the user with that id, as `connection` sees it."""
    row = connection.execute(_BY_ID, {"user_id": user_id}).one_or_none()
    return None if row is None else user_view(row, now)


def is_identified_by(identifier: str) -> ColumnElement[bool]:
    """Return the condition that a canonical identifier names the user: its name or its address."""
    return identifying_column(identifier) == identifier


def identifying_column(identifier: str) -> Column[str]:
    """Return the column that holds a canonical identifier: of names, or of addresses."""
    return users.c.email_normalized if "@" in identifier else users.c.username
