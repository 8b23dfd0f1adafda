"""The queue of mails. A row is a request: text and token are generated when the mail is sent."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id, partial_index


class MailKind(StrEnum):
    """The kinds of mails that the service sends."""

    ACCOUNT_EXISTS = "account_exists"
    ACCOUNT_LOCKED = "account_locked"
    CODES_LOCKED = "codes_locked"
    API_KEY_EXPIRING = "api_key_expiring"
    EMAIL_CHANGE_CONFIRM = "email_change_confirm"
    EMAIL_CHANGE_NOTICE = "email_change_notice"
    EMAIL_CHANGED = "email_changed"
    FACTOR_ADDED = "factor_added"
    FACTOR_REMOVED = "factor_removed"
    INVITATION = "invitation"
    MFA_DISABLED = "mfa_disabled"
    MFA_RESET = "mfa_reset"
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    RECOVERY_CODES_CREATED = "recovery_codes_created"
    RECOVERY_CODE_USED = "recovery_code_used"
    VERIFY_EMAIL = "verify_email"


class OutgoingMail(Base):
    """One mail in the queue.

    A worker that sends it sets `next_attempt_at` to the time by which it must have finished.
    """

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
        partial_index(
            "ix_outgoing_mails_due",
            "next_attempt_at",
            where="sent_at IS NULL AND parked_at IS NULL",
        ),
        Index("ix_outgoing_mails_user_id", "user_id"),
        partial_index("ix_outgoing_mails_sent_at", "sent_at", where="sent_at IS NOT NULL"),
    )
