"""The table of audit rows. Triggers refuse to change or delete them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.database import Base, JsonDocument, UuidKey, new_id


class AuditLog(Base):
    """Who did what to whom, from where, and with what outcome.

    Actors and targets are plain values, not foreign keys: rows outlive what they tell of.
    """

    __tablename__ = "audit_logs"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    occurred_at: Mapped[datetime]
    action: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[UUID | None]
    actor_username: Mapped[str | None] = mapped_column(String(64))
    actor_type: Mapped[str] = mapped_column(String(16))
    session_id: Mapped[UUID | None]
    target_type: Mapped[str | None] = mapped_column(String(32))
    target_id: Mapped[str | None] = mapped_column(String(64))
    ip_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    correlation_id: Mapped[str | None] = mapped_column(String(64))
    changes: Mapped[dict[str, Any] | None] = mapped_column(JsonDocument)
    details: Mapped[dict[str, Any] | None] = mapped_column(JsonDocument)

    __table_args__ = (
        CheckConstraint("outcome IN ('success', 'failure', 'denied')", name="outcome"),
        CheckConstraint(
            "actor_type IN ('user', 'service', 'system', 'anonymous')", name="actor_type"
        ),
        Index("ix_audit_logs_occurred_at_id", "occurred_at", "id"),
        Index("ix_audit_logs_actor_id_occurred_at_id", "actor_id", "occurred_at", "id"),
        Index("ix_audit_logs_target_id_occurred_at_id", "target_id", "occurred_at", "id"),
        Index("ix_audit_logs_action_occurred_at_id", "action", "occurred_at", "id"),
        Index("ix_audit_logs_outcome_occurred_at_id", "outcome", "occurred_at", "id"),
        Index("ix_audit_logs_ip_address_occurred_at_id", "ip_address", "occurred_at", "id"),
        Index("ix_audit_logs_correlation_id", "correlation_id"),
    )


class AuditRetention(Base):
    """One row that opens the way out for old rows while `flask audit prune` runs, and only then."""

    __tablename__ = "audit_retention"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    deletable_before: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)
