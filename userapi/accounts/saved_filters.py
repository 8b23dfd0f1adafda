"""Saved filters: a user gives a name to the filters of a list and finds them again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, String, delete, func, select
from sqlalchemy.orm import Mapped, mapped_column

from userapi.accounts.views import users
from userapi.clock import Clock
from userapi.errors import Conflict
from userapi.infrastructure.database import (
    Base,
    JsonDocument,
    dialect_of,
    excluded,
    reading,
    table_of,
    transaction,
    upsert,
)

MAX_PER_LIST = 20


class TooManySavedFilters(Conflict):
    """A user has as many saved filters of a list as are allowed."""

    code = "too_many_saved_filters"
    title = f"You can save {MAX_PER_LIST} filters. Delete one first."


class SavedFilter(Base):
    """The filters of a list as they were typed, under a name that one user chose."""

    __tablename__ = "saved_filters"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    list_name: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    filters: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    created_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class SavedFilterView:
    """A saved filter as it is shown."""

    name: str
    filters: dict[str, str]


_table = table_of(SavedFilter)


class SavedFilters:
    """Stores the filters that users save."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    def of(self, user_id: UUID, list_name: str) -> list[SavedFilterView]:
        """Return the filters that a user has saved for a list, by name."""
        query = (
            select(_table.c.name, _table.c.filters)
            .where(_table.c.user_id == user_id, _table.c.list_name == list_name)
            .order_by(_table.c.name)
        )
        with reading() as connection:
            return [SavedFilterView(*row) for row in connection.execute(query)]

    def save(self, user_id: UUID, list_name: str, name: str, filters: dict[str, str]) -> None:
        """Save filters under a name; replace those with this name. Raises TooManySavedFilters."""
        mine = (_table.c.user_id == user_id, _table.c.list_name == list_name)
        others = select(func.count()).where(*mine, _table.c.name != name)
        row = {
            "user_id": user_id,
            "list_name": list_name,
            "name": name,
            "filters": filters,
            "created_at": self._clock.now(),
        }
        with transaction() as session:
            # Concurrent requests of one user are counted one after the other.
            session.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())
            if session.execute(others).scalar_one() >= MAX_PER_LIST:
                raise TooManySavedFilters()
            session.execute(
                upsert(
                    dialect_of(session),
                    _table,
                    [row],
                    changes={"filters": excluded(_table.c.filters)},
                )
            )

    def delete(self, user_id: UUID, list_name: str, name: str) -> None:
        """Delete a filter of the user, if it exists."""
        mine = (_table.c.user_id == user_id, _table.c.list_name == list_name)
        with transaction() as session:
            session.execute(delete(_table).where(*mine, _table.c.name == name))
