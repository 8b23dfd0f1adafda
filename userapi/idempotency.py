"""The table of kept answers: a create that is sent twice with one key happens once.

Follows draft-ietf-httpapi-idempotency-key-header. The answer is kept in the transaction of its
effect, so it exists exactly when the effect does.
"""

from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from userapi.database import Base, JsonDocument


class IdempotencyKey(Base):
    """The first answer to a key. `scope_hash` covers endpoint, actor and key."""

    __tablename__ = "idempotency_keys"

    scope_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JsonDocument)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_idempotency_keys_expires_at", "expires_at"),)


class AnswerKeeper(Protocol):
    """Takes part in the transaction of a create, so that its answer is kept exactly with it."""

    def begin(self) -> None:
        """Claim the key; the first statement of the transaction."""
        ...

    def keep(self, result: Any) -> None:
        """Keep the answer that `result` makes; the last statement of the transaction."""
        ...
