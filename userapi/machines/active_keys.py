"""Which API keys are active, which of them need attention, and which still exist."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from userapi.infrastructure.database import table_of
from userapi.machines.models import ApiKey

keys = table_of(ApiKey)

EXPIRING_WITHIN = timedelta(days=14)


class KeyAttention(StrEnum):
    """Why a key needs attention."""

    EXPIRING = "expiring"
    UNUSED = "unused"
    ENDLESS = "endless"


def is_active_key(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a key is neither revoked nor expired."""
    return and_(
        keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)
    )


def needs(attention: KeyAttention, now: datetime) -> ColumnElement[bool]:
    """Return the condition that an active key needs this attention.

    A key that was replaced expires as intended and is not among the expiring ones.
    """
    match attention:
        case KeyAttention.EXPIRING:
            is_soon = keys.c.expires_at <= now + EXPIRING_WITHIN
            return and_(is_soon, keys.c.replaced_by.is_(None))
        case KeyAttention.UNUSED:
            return keys.c.last_used_at.is_(None)
        case KeyAttention.ENDLESS:
            return keys.c.expires_at.is_(None)


def kept_key(session: Session, key_id: UUID) -> Row[Any] | None:
    """Return the row of a key, which cannot be deleted until the transaction ends.

    So rows that refer to the key can be written. Changes of the key do not wait for it.
    """
    query = select(keys).where(keys.c.id == key_id).with_for_update(read=True, key_share=True)
    return session.execute(query).one_or_none()
