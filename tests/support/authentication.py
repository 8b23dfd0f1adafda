"""Sessions as a second factor, the passage of time or an earlier release would have left them."""

from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import update

from userapi.accounts.models import User
from userapi.infrastructure.database import after_commit, table_of, transaction
from userapi.sessions.models import UserSession
from userapi.wiring.services import Services

_users, _sessions = table_of(User), table_of(UserSession)


def set_mfa_enabled(app: Flask, user_id: str, *, enabled: bool = True) -> None:
    """Store whether a user has a second factor."""
    _change_user(app, user_id, mfa_enabled=enabled)


def set_authentication(app: Flask, user_id: str, session_id: str, **columns: Any) -> None:
    """Store how a session was authenticated."""
    with app.app_context(), transaction() as session:
        session.execute(
            update(_sessions).where(_sessions.c.id == UUID(session_id)).values(**columns)
        )
    _change_user(app, user_id)


def _change_user(app: Flask, user_id: str, **columns: Any) -> None:
    """Change a row of a user, and invalidate the cached sessions."""
    services: Services = app.extensions["userapi"]
    with app.app_context(), transaction() as session:
        version: int = session.execute(
            update(_users)
            .where(_users.c.id == UUID(user_id))
            .values(access_version=_users.c.access_version + 1, **columns)
            .returning(_users.c.access_version)
        ).scalar_one()
        after_commit(
            lambda: services.live_sessions.user_changed(UUID(user_id), access_version=version)
        )
