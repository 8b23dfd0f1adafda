"""Passkeys of another RP ID than that of the settings."""

from sqlalchemy import Connection, func, select

from userapi.factors.models import Passkey
from userapi.infrastructure.database import table_of

_passkeys = table_of(Passkey)


def count_foreign_passkeys(connection: Connection, rp_id: str) -> int:
    """Return how many passkeys belong to another RP ID, so that no browser offers them."""
    query = select(func.count()).where(_passkeys.c.rp_id != rp_id)
    return int(connection.execute(query).scalar_one())
