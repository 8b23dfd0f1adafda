"""Activation: a pending or suspended account becomes active.

These are steps of several use cases, inside their transaction.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from userapi.accounts.errors import InvalidStatusTransition
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType

ALLOWED_TRANSITIONS = {
    (UserStatus.PENDING, UserStatus.ACTIVE),
    (UserStatus.PENDING, UserStatus.SUSPENDED),
    (UserStatus.ACTIVE, UserStatus.SUSPENDED),
    (UserStatus.SUSPENDED, UserStatus.ACTIVE),
}


def require_transition(user: User, status: UserStatus) -> None:
    """Raise InvalidStatusTransition if the user cannot change to this status."""
    if (UserStatus(user.status), status) not in ALLOWED_TRANSITIONS:
        raise InvalidStatusTransition(f"An account that is {user.status} cannot become {status}.")


def activate_locked(
    accounts: Accounts, session: Session, user: User, *, actor: Actor, reason: str | None = None
) -> None:
    """Activate a locked user. Raises InvalidStatusTransition."""
    require_transition(user, UserStatus.ACTIVE)
    before = user.status
    user.status = UserStatus.ACTIVE
    user.status_reason = None
    user.suspended_until = None
    accounts.save(
        session,
        user,
        AuditAction.USER_ACTIVATED,
        EventType.USER_ACTIVATED,
        actor=actor,
        changes={"status": (before, str(UserStatus.ACTIVE))},
        details={"reason": reason},
    )


def lift_suspension(
    accounts: Accounts, session: Session, user: User, *, actor: Actor, now: datetime
) -> bool:
    """Activate a locked user whose suspension has expired; return whether it had."""
    if user.status != UserStatus.SUSPENDED or user.suspended_until is None:
        return False
    if user.suspended_until > now:
        return False
    activate_locked(accounts, session, user, actor=actor, reason="until_reached")
    return True
