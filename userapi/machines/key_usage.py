"""When and from where a key was last used.

At most one write a minute for each key, whatever the number of processes and requests. A use is
recorded at most a minute late. A write never waits for a lock and never fails a request.
"""

import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Connection, Table, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from userapi.clock import Clock
from userapi.errors import OutcomeUnknown
from userapi.infrastructure.bounded_dict import BoundedDict
from userapi.infrastructure.database import autocommit, reading
from userapi.machines.active_keys import keys
from userapi.machines.models import OwnerType
from userapi.machines.status import LiveKey
from userapi.machines.views import accounts

log = structlog.get_logger(__name__)

INTERVAL = timedelta(seconds=60)
# After a row that another transaction has locked.
RETRY = timedelta(seconds=1)
MAX_KEYS = 10_000


class KeyUsage:
    """Records the use of keys."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When this process has to look at a key again, by the numbers of their ids: comparing
        # UUIDs takes longer than the rest.
        self._due: BoundedDict[int, datetime] = BoundedDict(MAX_KEYS)
        self._lock = threading.Lock()

    def record(self, live: LiveKey, address: str | None) -> None:
        """Record that a key was used, unless that was recorded within the last minute."""
        now, key = self._clock.now(), live.key_id.int
        if self._is_recorded(key, now):
            return
        with self._lock:
            if self._is_recorded(key, now):
                return
            # Concurrent requests of this process do not write as well.
            self._due[key] = now + INTERVAL
        try:
            due = self._write(live, address, now)
        except (SQLAlchemyError, OutcomeUnknown) as exc:
            log.warning("keys.use_not_recorded", error=type(exc).__name__)
            due = now + INTERVAL
        self._due[key] = due

    def _is_recorded(self, key: int, now: datetime) -> bool:
        due = self._due.get(key)
        return due is not None and now < due

    def _write(self, live: LiveKey, address: str | None, now: datetime) -> datetime:
        """Write the use if it is due; return when the next one is."""
        with autocommit() as connection:
            written = _touch(
                connection, keys, live.key_id, now, {"last_used_at": now, "last_used_ip": address}
            )
        if not written:
            query = select(keys.c.last_used_at).where(keys.c.id == live.key_id)
            with reading() as connection:
                last = connection.execute(query).scalar_one_or_none()
            return now + RETRY if last is None or last + INTERVAL <= now else last + INTERVAL
        if live.owner_type is OwnerType.SERVICE:
            with autocommit() as connection:
                _touch(connection, accounts, live.owner_id, now, {"last_used_at": now})
        return now + INTERVAL


def _touch(
    connection: Connection, table: Table, row_id: UUID, now: datetime, values: dict[str, Any]
) -> bool:
    """Write a use to a row whose last one is a minute old. Skips a locked row."""
    due: ColumnElement[bool] = or_(
        table.c.last_used_at.is_(None), table.c.last_used_at <= now - INTERVAL
    )
    free = select(table.c.id).where(table.c.id == row_id, due).with_for_update(skip_locked=True)
    statement = update(table).where(table.c.id.in_(free)).values(**values).returning(table.c.id)
    return connection.execute(statement).first() is not None
