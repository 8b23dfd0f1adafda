"""Finds and locks the account behind a session, a link or an e-mail address.

The functions that lock need the open transaction of the use case that calls them.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import User, UserStatus
from userapi.accounts.views import UserView, find_user, is_identified_by, users
from userapi.actor import Actor, ActorType
from userapi.authentication.refusals import TokenRevoked
from userapi.infrastructure.database import reading
from userapi.passwords.one_time_tokens import InvalidToken
from userapi.sessions.models import UserSession


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailOwner:
    """The account that an e-mail address belongs to; all fields are empty if there is none."""

    user_id: UUID | None = None
    status: UserStatus | None = None
    is_invited: bool = False


def find_by_email(email: str) -> EmailOwner:
    """Return the account with this address. A pending user without a password is invited."""
    query = select(users.c.id, users.c.status, users.c.password_hash.is_(None)).where(
        is_identified_by(canonical_identifier(email))
    )
    with reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return EmailOwner()
    user_id, status, has_no_password = row
    is_invited = status == UserStatus.PENDING and has_no_password
    return EmailOwner(user_id=user_id, status=UserStatus(status), is_invited=is_invited)


def as_user(actor: Actor, user: User | UserView) -> Actor:
    """Return the actor as this user, after a password or a token has identified the user."""
    return replace(actor, type=ActorType.USER, id=user.id, username=user.username)


def view_of(session: Session, user_id: UUID, now: datetime) -> UserView:
    """Return a user as the open transaction sees them. Raises TokenRevoked if there is none."""
    view = find_user(session, user_id, now)
    if view is None:
        raise TokenRevoked()
    return view


def lock_session(session: Session, session_id: UUID) -> UserSession | None:
    """Return a user's session as it is now, locked, or None."""
    return session.get(UserSession, session_id, with_for_update=True, populate_existing=True)


def lock_active_user(session: Session, user_id: UUID) -> User:
    """Return the signed-in user, locked. Raises TokenRevoked if suspended or deleted by now."""
    user = session.get(User, user_id, with_for_update=True)
    if user is None or user.status != UserStatus.ACTIVE:
        raise TokenRevoked()
    return user


def lock_link_owner(session: Session, user_id: UUID) -> User:
    """Return the user whose one-time token was sent, locked. Raises InvalidToken."""
    user = session.get(User, user_id, with_for_update=True)
    if user is None or user.status == UserStatus.SUSPENDED:
        raise InvalidToken()
    return user
