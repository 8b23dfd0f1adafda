"""The user handle of each account: what passkeys store in place of its id.

It is random (WebAuthn Level 3 §14.6.1), because anyone who holds an authenticator can read it, and
created when it is needed first.
"""

import secrets
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from userapi.accounts.errors import UserNotFound
from userapi.accounts.models import User
from userapi.factors.models import WebAuthnUser
from userapi.infrastructure.database import (
    dialect_of,
    insert_for,
    reading,
    table_of,
    transaction,
)

HANDLE_BYTES = 32

_table = table_of(WebAuthnUser)


def user_handle(user_id: UUID) -> bytes:
    """Return the handle of a user; create it if there is none. Raises UserNotFound."""
    with reading() as connection:
        handle = find_user_handle(connection, user_id)
    if handle is not None:
        return handle
    with transaction() as session:
        if session.get(User, user_id, with_for_update=True) is None:
            raise UserNotFound()
        session.execute(
            insert_for(dialect_of(session), _table)
            .values(user_id=user_id, handle=secrets.token_bytes(HANDLE_BYTES))
            .on_conflict_do_nothing()
        )
        stored = find_user_handle(session, user_id)
    if stored is None:
        raise RuntimeError("the handle that was inserted is not there")
    return stored


def find_user_handle(connection: Connection | Session, user_id: UUID) -> bytes | None:
    """Return the handle of a user, if there is one."""
    handle: bytes | None = connection.scalar(
        select(_table.c.handle).where(_table.c.user_id == user_id)
    )
    return handle
