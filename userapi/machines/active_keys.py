"""Which API keys are active, and which still exist."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from userapi.infrastructure.database import table_of
from userapi.machines.models import ApiKey

keys = table_of(ApiKey)


def is_active_key(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a key is neither revoked nor expired."""
    return and_(
        keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)
    )


def kept_key(session: Session, key_id: UUID) -> Row[Any] | None:
    """Return the row of a key, which cannot be deleted until the transaction ends.

    So rows that refer to the key can be written. Changes of the key do not wait for it.
    """
    query = select(keys).where(keys.c.id == key_id).with_for_update(read=True, key_share=True)
    return session.execute(query).one_or_none()
