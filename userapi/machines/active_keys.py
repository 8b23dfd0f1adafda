"""Which API keys are active."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_

from userapi.infrastructure.database import table_of
from userapi.machines.models import ApiKey

keys = table_of(ApiKey)


def is_active_key(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a key is neither revoked nor expired."""
    return and_(
        keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)
    )
