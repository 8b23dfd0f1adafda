"""The outbox: events that were committed together with the change that they tell of, and how many
have left it.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, CountingKey, JsonDocument, new_id


class OutboxEvent(Base):
    """One event on its way. `sequence` grows; events of one subject are published in its order."""

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
        Index(
            "ix_outbox_events_unsent",
            "sequence",
            postgresql_where=text("sent_at IS NULL"),
            sqlite_where=text("sent_at IS NULL"),
        ),
        Index(
            "ix_outbox_events_sent_at",
            "sent_at",
            postgresql_where=text("sent_at IS NOT NULL"),
            sqlite_where=text("sent_at IS NOT NULL"),
        ),
        # What holds back its subject: few, or none.
        Index(
            "ix_outbox_events_held_back",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
            sqlite_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_events_parked_at",
            "parked_at",
            postgresql_where=text("parked_at IS NOT NULL"),
            sqlite_where=text("parked_at IS NOT NULL"),
        ),
        # Without it SQLite would give the numbers of deleted rows again.
        {"sqlite_autoincrement": True},
    )


class PublishedEvents(Base):
    """One row that counts what the broker has confirmed and what has expired unsent, ever.

    In the database and not in the process that publishes, so that every process can tell it.
    """

    __tablename__ = "published_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    expired: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)
