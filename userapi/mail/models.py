"""The queue of mails. A row is an intent: the text and its token are made when it is sent."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id


class MailKind(StrEnum):
    """The closed set of mails that the service sends."""

    ACCOUNT_EXISTS = "account_exists"
    ACCOUNT_LOCKED = "account_locked"
    EMAIL_CHANGE_CONFIRM = "email_change_confirm"
    EMAIL_CHANGE_NOTICE = "email_change_notice"
    EMAIL_CHANGED = "email_changed"
    INVITATION = "invitation"
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    VERIFY_EMAIL = "verify_email"


class OutgoingMail(Base):
    """One mail on its way. `next_attempt_at` is also how long a worker that sends it has for it."""

    __tablename__ = "outgoing_mails"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    kind: Mapped[str] = mapped_column(String(32))
    recipient: Mapped[str] = mapped_column(String(320))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    data: Mapped[dict[str, Any]] = mapped_column(JsonDocument, default=dict)
    correlation_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    parked_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(String(500))

    __table_args__ = (
        Index(
            "ix_outgoing_mails_due",
            "next_attempt_at",
            postgresql_where=text("sent_at IS NULL AND parked_at IS NULL"),
            sqlite_where=text("sent_at IS NULL AND parked_at IS NULL"),
        ),
        Index("ix_outgoing_mails_user_id", "user_id"),
        Index(
            "ix_outgoing_mails_sent_at",
            "sent_at",
            postgresql_where=text("sent_at IS NOT NULL"),
            sqlite_where=text("sent_at IS NOT NULL"),
        ),
    )
