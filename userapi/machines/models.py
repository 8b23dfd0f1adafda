"""The tables of service accounts, API keys and client tokens."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, UuidKey, new_id, partial_index


class AccountStatus(StrEnum):
    """The statuses of a service account."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class OwnerType(StrEnum):
    """Who can own an API key."""

    SERVICE = "service"
    USER = "user"


class KeyStatus(StrEnum):
    """The states of an API key."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why an API key was revoked."""

    LEAKED = "leaked"
    PASSWORD_RESET = "password_reset"
    REVOKED = "revoked"
    ROTATED = "rotated"


class ServiceAccount(Base):
    """An identity of a program. It has no password, no address and no session.

    `version` counts the changes of the account, and is the entity tag. `access_version` also counts
    the changes of its keys; a copy in Redis is valid for one value of it. `token_version` counts
    the suspensions: client tokens of earlier versions are revoked.
    """

    __tablename__ = "service_accounts"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    status: Mapped[str] = mapped_column(String(16), default=AccountStatus.ACTIVE)
    status_reason: Mapped[str | None] = mapped_column(String(500))
    attributes: Mapped[dict[str, Any]] = mapped_column(JsonDocument, default=dict)
    search_text: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[int] = mapped_column(default=1)
    access_version: Mapped[int] = mapped_column(default=1)
    token_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    created_by: Mapped[UUID | None]
    last_used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('active', 'suspended')", name="status"),
        Index("ix_service_accounts_created_at_id", "created_at", "id"),
        Index("ix_service_accounts_last_used_at_id", "last_used_at", "id"),
    )


class ApiKey(Base):
    """A key of a user or of a service account. Only the SHA-256 of its text is stored.

    `version` counts the changes of the key. `notify_at` is the time of the notice that the key
    expires, until it was sent.
    """

    __tablename__ = "api_keys"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    service_account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("service_accounts.id", ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(String(100))
    key_hash: Mapped[str] = mapped_column(String(64))
    hint: Mapped[str] = mapped_column(String(4))
    permissions: Mapped[list[str] | None] = mapped_column(JsonDocument)
    allowed_networks: Mapped[list[str] | None] = mapped_column(JsonDocument)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    created_by: Mapped[UUID | None]
    expires_at: Mapped[datetime | None]
    notify_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_ip: Mapped[str | None] = mapped_column(String(45))
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None] = mapped_column(String(32))
    rotated_from: Mapped[UUID | None]
    replaced_by: Mapped[UUID | None]

    __table_args__ = (
        CheckConstraint("(user_id IS NULL) <> (service_account_id IS NULL)", name="owner"),
        Index("ix_api_keys_user_id_created_at", "user_id", "created_at"),
        Index("ix_api_keys_service_account_id_created_at", "service_account_id", "created_at"),
        Index("ix_api_keys_expires_at", "expires_at"),
        partial_index("ix_api_keys_revoked_at", "revoked_at", where="revoked_at IS NOT NULL"),
        partial_index("ix_api_keys_notify_at", "notify_at", where="notify_at IS NOT NULL"),
    )

    @property
    def owner_type(self) -> OwnerType:
        """Return the kind of the owner."""
        return OwnerType.SERVICE if self.user_id is None else OwnerType.USER


class ClientToken(Base):
    """What a client token cannot contain: that it was revoked, or a scope that is too long.

    Most tokens have no row. The row is deleted when the token has expired.
    """

    __tablename__ = "client_tokens"

    jti: Mapped[UuidKey]
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    scope: Mapped[list[str] | None] = mapped_column(JsonDocument)
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_client_tokens_key_id", "key_id"),
        Index("ix_client_tokens_expires_at", "expires_at"),
    )


class KeyRefusal(Base):
    """When the refusal of a key was last recorded in the audit log, for each reason."""

    __tablename__ = "api_key_refusals"

    key_id: Mapped[UUID] = mapped_column(
        ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True
    )
    reason: Mapped[str] = mapped_column(String(32), primary_key=True)
    recorded_at: Mapped[datetime]
