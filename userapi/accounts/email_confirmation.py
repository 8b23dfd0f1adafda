"""E-mail confirmation: what a link that a user received by mail proves about their address.

These are steps of the use cases in `authentication`, which redeem the token of the link.
"""

from sqlalchemy.orm import Session

from userapi.accounts.activation import activate_locked
from userapi.accounts.addresses import parse_email
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.passwords.one_time_tokens import OneTimeTokens


class EmailConfirmation:
    """Confirms the addresses of locked users, in the open transaction."""

    def __init__(self, *, accounts: Accounts, one_time_tokens: OneTimeTokens) -> None:
        self._accounts = accounts
        self._one_time_tokens = one_time_tokens

    def confirm(self, session: Session, user: User, *, actor: Actor) -> None:
        """Mark the address as verified, and activate a pending user."""
        if not user.email_verified:
            user.email_verified = True
            self._accounts.save(
                session,
                user,
                AuditAction.USER_EMAIL_VERIFIED,
                EventType.USER_EMAIL_VERIFIED,
                actor=actor,
            )
        if user.status == UserStatus.PENDING:
            activate_locked(self._accounts, session, user, actor=actor)

    def replace(self, session: Session, user: User, email: str, *, actor: Actor) -> None:
        """Store another, unverified address. Open one-time tokens are void. Raises EmailTaken."""
        address = parse_email(email)
        before = user.email
        user.email = address.shown
        user.email_normalized = address.normalized
        user.email_verified = False
        self._accounts.save(
            session,
            user,
            AuditAction.USER_EMAIL_CHANGED,
            EventType.USER_EMAIL_CHANGED,
            actor=actor,
            changes={"email": (before, user.email)},
        )
        self._one_time_tokens.void_all(user.id)
