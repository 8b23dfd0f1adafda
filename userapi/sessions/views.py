"""Sessions as their users see them, and all stored data of a user's sessions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select

from userapi.characters import without_controls
from userapi.infrastructure.database import reading, table_of
from userapi.infrastructure.network_addresses import canonical_address
from userapi.sessions.authentication_level import stored_authentication
from userapi.sessions.devices import device_label
from userapi.sessions.models import UserSession

ROWS_PER_CHUNK = 1000

_table = table_of(UserSession)
_COLUMNS = _table.c.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as its user sees it."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ip_address: str | None
    user_agent: str | None
    device: str
    current: bool
    acr: str
    amr: tuple[str, ...]
    authenticated_at: datetime


def session_view(row: Row[Any], current: UUID | None = None) -> SessionView:
    """Return the view of a row; `current` is the session of the request."""
    proved = stored_authentication(row.acr, row.amr, row.authenticated_at or row.created_at)
    return SessionView(
        id=row.id,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        ip_address=canonical_address(row.ip_address or "") or row.ip_address,
        user_agent=without_controls(row.user_agent or "") or None,
        device=device_label(row.user_agent),
        current=row.id == current,
        acr=proved.acr,
        amr=proved.amr,
        authenticated_at=proved.authenticated_at,
    )


def all_sessions(user_id: UUID) -> Iterator[dict[str, Any]]:
    """Return every stored session of a user, including ended ones, oldest first.

    The first ones are read before this returns.
    """
    query = select(_table).where(_table.c.user_id == user_id).order_by(_table.c.id)
    return chain.from_iterable(_chunks(_read_rows(query), query))


def _chunks(first: list[dict[str, Any]], query: Select[Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield chunk after chunk in the order of ids. No connection is held while one is sent."""
    rows = first
    while rows:
        yield rows
        if len(rows) < ROWS_PER_CHUNK:
            return
        rows = _read_rows(query.where(_table.c.id > rows[-1]["id"]))


def _read_rows(query: Select[Any]) -> list[dict[str, Any]]:
    with reading() as connection:
        rows = connection.execute(query.limit(ROWS_PER_CHUNK))
        return [_exported(row) for row in rows]


def _exported(row: Row[Any]) -> dict[str, Any]:
    proved = stored_authentication(row.acr, row.amr, row.authenticated_at or row.created_at)
    stored = dict(zip(_COLUMNS, row, strict=True))
    return stored | {"amr": proved.amr, "authenticated_at": proved.authenticated_at}
