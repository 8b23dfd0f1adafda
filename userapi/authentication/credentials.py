"""What a log-in reads of an account, before and after its password is checked."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.orm import Session

from userapi.accounts.views import (
    ALL_USERS,
    COLUMNS,
    UserView,
    identifying_column,
    user_view,
    users,
)
from userapi.roles.service import catalogue_version


@dataclass(slots=True)
class StoredCredentials:
    """The account that an identifier names, before the password is verified.

    No more is read of it by then than of an unknown account: the time must not reveal which it is.
    """

    id: UUID
    password_hash: str | None
    needs_rehash: bool = False


@dataclass(frozen=True, slots=True)
class UserSnapshot:
    """A user and the version of the role catalogue, read by one statement."""

    view: UserView
    catalogue_version: int


_BY_IDENTIFIER = {
    column: select(users.c.id, users.c.password_hash).where(column == bindparam("identifier"))
    for column in (users.c.username, users.c.email_normalized)
}
_SNAPSHOT = ALL_USERS.add_columns(catalogue_version()).where(users.c.id == bindparam("of_user"))


def find_credentials(connection: Connection, identifier: str) -> StoredCredentials | None:
    """Return the account that a canonical identifier names, or None."""
    query = _BY_IDENTIFIER[identifying_column(identifier)]
    row = connection.execute(query, {"identifier": identifier}).one_or_none()
    return None if row is None else StoredCredentials(*row)


def read_snapshot(session: Session, user_id: UUID, now: datetime) -> UserSnapshot:
    """Return a user whose row the open transaction has locked."""
    row = session.execute(_SNAPSHOT, {"of_user": user_id}).one()
    return UserSnapshot(user_view(row, now), row[COLUMNS])
