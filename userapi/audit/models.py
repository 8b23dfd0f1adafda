"""The tables of audit rows and their seals. Triggers refuse to change or delete either."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id, partial_index


class AuditLog(Base):
    """Who did what to whom, from where, and with what outcome.

    Actors and targets are plain values, not foreign keys: rows outlive the users they name.
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
    key_id: Mapped[UUID | None]

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
        Index("ix_audit_logs_actor_type_occurred_at_id", "actor_type", "occurred_at", "id"),
        partial_index(
            "ix_audit_logs_key_id_occurred_at_id",
            "key_id",
            "occurred_at",
            "id",
            where="key_id IS NOT NULL",
        ),
    )


class AuditRetention(Base):
    """One row that allows old rows to be deleted, only while `flask audit prune` runs."""

    __tablename__ = "audit_retention"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    deletable_before: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)


class AuditUnsealed(Base):
    """The queue of rows without a seal.

    A trigger inserts the entry in the transaction of the row, so both become visible together,
    however late it commits. No foreign key: an entry whose row was removed is evidence.
    """

    __tablename__ = "audit_unsealed"

    audit_id: Mapped[UuidKey]


class AuditSeal(Base):
    """One link of the chain: its rows, and a MAC over them and the previous link.

    `entries` has 40 bytes per row, in order: its id, its time and a MAC over all its values.
    """

    __tablename__ = "audit_seals"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sealed_at: Mapped[datetime]
    first_id: Mapped[UUID]
    last_id: Mapped[UUID]
    earliest_at: Mapped[datetime]
    latest_at: Mapped[datetime]
    row_count: Mapped[int]
    entries: Mapped[bytes] = mapped_column(LargeBinary)
    previous_mac: Mapped[str] = mapped_column(String(64))
    mac: Mapped[str] = mapped_column(String(64))
    # None if an early release made the seal.
    key_id: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (
        Index("ix_audit_seals_key_id_number", "key_id", "number"),
        Index("ix_audit_seals_earliest_at", "earliest_at"),
        Index("ix_audit_seals_latest_at", "latest_at"),
    )


class AuditSealHead(Base):
    """One row, with a MAC: where the chain begins and ends, and what was pruned."""

    __tablename__ = "audit_seal_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)
    rows_sealed: Mapped[int] = mapped_column(BigInteger)
    seal_mac: Mapped[str] = mapped_column(String(64))
    cut_number: Mapped[int] = mapped_column(BigInteger)
    cut_rows: Mapped[int] = mapped_column(BigInteger)
    cut_mac: Mapped[str] = mapped_column(String(64))
    pruned_before: Mapped[datetime | None]
    pruned_rows: Mapped[int] = mapped_column(BigInteger)
    mac: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)


class AuditChainStart(Base):
    """Where a new chain began, why, and which keys were lost, with a MAC of the new chain.

    `number` is that of the first seal of the new chain; `former_mac` is the last seal before it.
    """

    __tablename__ = "audit_chain_starts"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    started_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(String(500))
    former_mac: Mapped[str] = mapped_column(String(64))
    lost_keys: Mapped[str] = mapped_column(String(1000))
    key_id: Mapped[str] = mapped_column(String(16))
    mac: Mapped[str] = mapped_column(String(64))


class AuditDailyCount(Base):
    """How many sealed rows of a kind a UTC day has. Counted when sealed, kept when pruned."""

    __tablename__ = "audit_daily_counts"

    day: Mapped[date] = mapped_column(primary_key=True)
    action: Mapped[str] = mapped_column(String(64), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
