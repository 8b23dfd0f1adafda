"""The outbox: events that are committed with their change, and the counts of published ones."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, String, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, CountingKey, JsonDocument, new_id, partial_index


class OutboxEvent(Base):
    """One event. `sequence` grows; events of one subject are published in its order."""

    __tablename__ = "outbox_events"

    sequence: Mapped[int] = mapped_column(CountingKey, primary_key=True)
    id: Mapped[UUID] = mapped_column(Uuid(), default=new_id, unique=True)
    type: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    correlation_id: Mapped[str | None] = mapped_column(String(64))
    traceparent: Mapped[str | None] = mapped_column(String(64))
    occurred_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        partial_index("ix_outbox_events_unsent", "sequence", where="sent_at IS NULL"),
        partial_index("ix_outbox_events_sent_at", "sent_at", where="sent_at IS NOT NULL"),
        # Events that block the later ones of their subject: few, or none.
        partial_index(
            "ix_outbox_events_held_back", "next_attempt_at", where="next_attempt_at IS NOT NULL"
        ),
        partial_index("ix_outbox_events_parked_at", "parked_at", where="parked_at IS NOT NULL"),
        # Without it SQLite would reuse the numbers of deleted rows.
        {"sqlite_autoincrement": True},
    )


class PublishedEvents(Base):
    """One row that counts all events that the broker confirmed, and all that expired unsent.

    It is in the database, not in the process that publishes, so every process can report it.
    """

    __tablename__ = "published_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    expired: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)
