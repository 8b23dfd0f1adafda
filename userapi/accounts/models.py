"""The table of users."""

import unicodedata
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Index, String, Text, event, false
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id, partial_index


class UserStatus(StrEnum):
    """The statuses of an account."""

    ACTIVE = "active"
    PENDING = "pending"
    SUSPENDED = "suspended"


class User(Base):
    """One account.

    `version` counts the changes of the user, and is the entity tag. `access_version` also counts
    log-ins and locks; a cached session is valid for one value of it.
    """

    __tablename__ = "users"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(320))
    email_normalized: Mapped[str] = mapped_column(String(320), unique=True)
    email_verified: Mapped[bool] = mapped_column(default=False)
    password_hash: Mapped[str | None] = mapped_column(Text)
    password_changed_at: Mapped[datetime | None]
    must_change_password: Mapped[bool] = mapped_column(default=False)
    mfa_enabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    first_name: Mapped[str | None] = mapped_column(String(100))
    last_name: Mapped[str | None] = mapped_column(String(100))
    phone: Mapped[str | None] = mapped_column(String(32))
    locale: Mapped[str | None] = mapped_column(String(35))
    timezone: Mapped[str | None] = mapped_column(String(64))
    avatar_url: Mapped[str | None] = mapped_column(String(2048))
    status: Mapped[str] = mapped_column(String(16), default=UserStatus.ACTIVE)
    status_reason: Mapped[str | None] = mapped_column(String(500))
    suspended_until: Mapped[datetime | None]
    locked_until: Mapped[datetime | None]
    attributes: Mapped[dict[str, Any]] = mapped_column(JsonDocument, default=dict)
    search_text: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[int] = mapped_column(default=1)
    access_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('active', 'pending', 'suspended')", name="status"),
        Index("ix_users_created_at_id", "created_at", "id"),
        Index("ix_users_updated_at_id", "updated_at", "id"),
        Index("ix_users_last_login_at_id", "last_login_at", "id"),
        Index("ix_users_email_id", "email", "id"),
        Index("ix_users_status_created_at_id", "status", "created_at", "id"),
        partial_index("ix_users_locked_until", "locked_until", where="locked_until IS NOT NULL"),
        partial_index("ix_users_mfa_enabled", "created_at", "id", where="mfa_enabled"),
        partial_index(
            "ix_users_suspended_until", "suspended_until", where="suspended_until IS NOT NULL"
        ),
    )


def searchable(*texts: str | None) -> str:
    """Return texts in the form that search compares: NFKC, case-folded, one on each line.

    No text contains a line feed, so a match never spans two fields.
    """
    return "\n".join(unicodedata.normalize("NFKC", text).casefold() for text in texts if text)


def search_text_of(user: User) -> str:
    """Return the text in which a search looks for this user."""
    return searchable(user.username, user.email, user.first_name, user.last_name)


@event.listens_for(User, "before_insert")
@event.listens_for(User, "before_update")
def _keep_search_text(_mapper: Any, _connection: Any, user: User) -> None:
    user.search_text = search_text_of(user)


PROFILE_FIELDS = ("first_name", "last_name", "phone", "locale", "timezone", "avatar_url")
