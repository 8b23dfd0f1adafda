"""The table of stored responses: a create that is sent twice with one key happens once.

Follows draft-ietf-httpapi-idempotency-key-header. The response is stored in the transaction of the
create, so one never exists without the other.
"""

from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Index, LargeBinary, String, delete
from sqlalchemy.orm import Mapped, mapped_column

from userapi.infrastructure.database import Base, JsonDocument, require_transaction


class IdempotencyKey(Base):
    """The first response to a key. `scope_hash` covers caller, method, path and key.

    `user_id` is the user in the response; the row is deleted together with the user.
    """

    __tablename__ = "idempotency_keys"

    scope_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JsonDocument)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    user_id: Mapped[UUID | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_idempotency_keys_expires_at", "expires_at"),
        Index("ix_idempotency_keys_user_id", "user_id"),
    )


class IdempotencyStore(Protocol):
    """Stores the response of a create in the transaction of the create."""

    def claim(self) -> None:
        """Claim the key; the first statement of the transaction."""
        ...

    def store(self, result: Any, *, user_id: UUID | None = None) -> None:
        """Store the response for `result`; the last statement of the transaction.

        `user_id` is the user that the response shows.
        """
        ...


def drop_answers_about(user_id: UUID) -> None:
    """Delete the stored responses that show a user, in the open transaction."""
    require_transaction().execute(
        delete(IdempotencyKey).where(IdempotencyKey.user_id == user_id),
        execution_options={"synchronize_session": False},
    )
