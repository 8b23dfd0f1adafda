"""The table of one-time tokens: links in mails that set a password or verify an address."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, UuidKey, new_id, partial_index


class TokenPurpose(StrEnum):
    """The purpose of a one-time token."""

    EMAIL_CHANGE = "email_change"
    EMAIL_VERIFICATION = "email_verification"
    INVITATION = "invitation"
    PASSWORD_RESET = "password_reset"


class OneTimeToken(Base):
    """A token that was sent by mail; only the SHA-256 of its text is stored."""

    __tablename__ = "one_time_tokens"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(320))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "purpose IN ('email_change', 'email_verification', 'invitation', 'password_reset')",
            name="purpose",
        ),
        partial_index(
            "ix_one_time_tokens_open_user_id",
            "user_id",
            "purpose",
            where="used_at IS NULL AND voided_at IS NULL",
        ),
        Index("ix_one_time_tokens_expires_at", "expires_at"),
    )
