"""Heartbeats of workers: one row for each worker."""

import os
import socket
from datetime import datetime, timedelta

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, db, dialect_of, table_of, transaction, upsert

# Three heartbeats.
SEEN_RECENTLY = timedelta(seconds=15)


class WorkerHeartbeat(Base):
    """A worker and the time of its last heartbeat."""

    __tablename__ = "worker_heartbeats"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    last_seen_at: Mapped[datetime]


_table = table_of(WorkerHeartbeat)


def record_heartbeat(name: str, now: datetime) -> None:
    """Store that the worker `name` is running."""
    row, seen = {"name": name, "last_seen_at": now}, {"last_seen_at": now}
    with transaction() as session:
        session.execute(upsert(dialect_of(session), _table, row, changes=seen))


def own_name() -> str:
    """Return the name that this process has as a worker."""
    return f"{_host()}:{os.getpid()}"


def running_workers(now: datetime) -> list[str]:
    """Return the names of the workers with a recent heartbeat.

    Workers of this machine whose process has ended are left out.
    """
    names = db.session.scalars(
        select(WorkerHeartbeat.name)
        .where(WorkerHeartbeat.last_seen_at > now - SEEN_RECENTLY)
        .order_by(WorkerHeartbeat.name)
    )
    return [name for name in names if not _has_ended(name)]


def _host() -> str:
    return socket.gethostname()[:100]


def _has_ended(name: str) -> bool:
    host, _, process = name.rpartition(":")
    if host != _host():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False
