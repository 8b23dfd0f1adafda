"""When a worker was last seen: one row for each."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.database import Base


class WorkerHeartbeat(Base):
    """A worker and the moment of its last sign of life."""

    __tablename__ = "worker_heartbeats"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    last_seen_at: Mapped[datetime]
