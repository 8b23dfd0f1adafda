"""The tables of sessions, which alone decide who is signed in, and of pending sign-ins."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, and_, func
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, UuidKey, new_id, partial_index, table_of
from userapi.sessions.authentication_level import Authentication, stored_authentication


class SessionKind(StrEnum):
    """How a client identifies its session: by tokens, or by the cookie of a browser."""

    API = "api"
    BROWSER = "browser"


class UserSession(Base):
    """One sign-in on one device.

    `generation` counts refreshes; only the token of the current generation can refresh. `version`
    counts events that invalidate earlier access tokens of the session, such as a new password.
    `acr` and `amr` (names separated by blanks, RFC 8176) describe how the user proved their
    identity, and `authenticated_at` when they last did; empty means `created_at`.
    """

    __tablename__ = "user_sessions"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16), default=SessionKind.API)
    generation: Mapped[int] = mapped_column(default=1)
    rotated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)
    remember_me: Mapped[bool] = mapped_column(default=False)
    ip_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None] = mapped_column(String(32))
    authenticated_at: Mapped[datetime | None]
    acr: Mapped[str] = mapped_column(String(8), default="aal1", server_default="aal1")
    amr: Mapped[str] = mapped_column(String(64), default="pwd", server_default="pwd")

    @property
    def authentication(self) -> Authentication:
        """Return how the session has authenticated its user."""
        return stored_authentication(self.acr, self.amr, self.authenticated_at or self.created_at)

    __table_args__ = (
        CheckConstraint("kind IN ('api', 'browser')", name="kind"),
        partial_index(
            "ix_user_sessions_live_user_id", "user_id", "created_at", where="revoked_at IS NULL"
        ),
        Index("ix_user_sessions_user_id", "user_id"),
        Index("ix_user_sessions_expires_at", "expires_at"),
        partial_index("ix_user_sessions_revoked_at", "revoked_at", where="revoked_at IS NOT NULL"),
        partial_index(
            "ix_user_sessions_live_expires_at",
            "expires_at",
            "rotated_at",
            where="revoked_at IS NULL",
        ),
    )


class PendingSignIn(Base):
    """A sign-in whose password was correct and whose second step is missing: an mfa_token.

    The row is deleted when the token is used or void. Only the SHA-256 of the token is stored.
    """

    __tablename__ = "pending_sign_ins"

    id: Mapped[UuidKey] = mapped_column(default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    lockout_key: Mapped[str] = mapped_column(String(64))
    amr: Mapped[str] = mapped_column(String(64))
    remember_me: Mapped[bool]
    failures: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_pending_sign_ins_user_id", "user_id", "created_at"),
        Index("ix_pending_sign_ins_expires_at", "expires_at"),
    )


def is_live(now: Any, idle_since: Any) -> ColumnElement[bool]:
    """Return the condition that a session has neither ended, expired, nor been idle for too long.

    The arguments are times, or parameters of a statement that is built once.
    """
    columns = table_of(UserSession).c
    return and_(
        columns.revoked_at.is_(None), columns.expires_at > now, columns.rotated_at > idle_since
    )


def authentication_columns() -> tuple[ColumnElement[Any], ...]:
    """Return the columns that `stored_authentication` accepts, in its order.

    Sessions of releases that did not store the time were authenticated when they were created.
    """
    columns = table_of(UserSession).c
    at = func.coalesce(columns.authenticated_at, columns.created_at)
    return columns.acr, columns.amr, at.label("authenticated_at")
