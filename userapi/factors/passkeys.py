"""The stored passkeys of an account, and the library that all ceremonies share."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from userapi.factors.challenges import LIFETIME
from userapi.factors.credentials import KnownCredential
from userapi.factors.models import Passkey
from userapi.infrastructure.database import table_of

MAX_PASSKEYS = 20

_table = table_of(Passkey)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyOptions:
    """The options of a ceremony for the browser, and how many seconds they are accepted."""

    public_key: dict[str, Any]
    expires_in: int = int(LIFETIME.total_seconds())


def known_credentials(
    connection: Connection | Session, user_id: UUID, *, rp_id: str | None = None
) -> list[KnownCredential]:
    """Return the passkeys of a user, oldest first; with `rp_id` those of that RP ID only."""
    query = select(_table.c.credential_id, _table.c.transports).where(_table.c.user_id == user_id)
    if rp_id is not None:
        query = query.where(_table.c.rp_id == rp_id)
    rows = connection.execute(query.order_by(_table.c.created_at, _table.c.id))
    return [
        KnownCredential(credential_id=row.credential_id, transports=row.transports) for row in rows
    ]


def load_library() -> None:
    """Import the library of WebAuthn, so that no transaction waits for it later.

    It takes 15 MB and 0.3 seconds, and most processes do not need it.
    """
    import_module("userapi.factors.webauthn_verification")
