"""Suspension: which accounts can log in. An administrator suspends, activates and unlocks them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.accounts.activation import activate_locked, lift_suspension, require_transition
from userapi.accounts.errors import SelfActionRefused
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts, require_not_last_superadmin
from userapi.accounts.views import UserView, users
from userapi.actor import Actor, system_actor
from userapi.audit.actions import AuditAction
from userapi.clock import Clock
from userapi.errors import invalid_field
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import reading, transaction
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.roles.assignment import role_names_of
from userapi.sessions.service import EndReason, Sessions


class AccountSuspension:
    """Suspends, activates and unlocks accounts.

    `suspend`, `activate` and `unlock` raise UserNotFound and InsufficientRank.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        clock: Clock,
        one_time_tokens: OneTimeTokens,
        sessions: Sessions,
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._one_time_tokens = one_time_tokens
        self._sessions = sessions

    def suspend(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        reason: str | None = None,
        until: datetime | None = None,
    ) -> UserView:
        """Suspend a user and end all their sessions.

        Also raises Invalid, SelfActionRefused, InvalidStatusTransition, LastSuperadmin.
        """
        self.require_future(until)
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            self._suspend_locked(session, user, actor=actor, reason=reason, until=until)
            view = self._accounts.view(session, user_id)
        return view

    def activate(self, user_id: UUID, *, actor: Actor, reason: str | None = None) -> UserView:
        """Activate a pending or suspended user. Also raises InvalidStatusTransition."""
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            activate_locked(self._accounts, session, user, actor=actor, reason=reason)
            view = self._accounts.view(session, user_id)
        return view

    def unlock(self, user_id: UUID, *, actor: Actor, reason: str | None = None) -> UserView:
        """Clear the failed log-ins and wrong codes of a user, who can then log in immediately."""
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            self._accounts.clear_all_failures(user)
            view = self._accounts.save(
                session,
                user,
                AuditAction.USER_UNLOCKED,
                EventType.USER_UNLOCKED,
                actor=actor,
                details={"reason": reason},
            )
        return view

    def lift_due(self, limit: int) -> int:
        """Lift at most `limit` suspensions whose end has passed; return how many were lifted.

        The worker calls this repeatedly. Each user has a separate transaction.
        """
        due = (
            select(users.c.id)
            .where(
                users.c.status == UserStatus.SUSPENDED,
                users.c.suspended_until.isnot(None),
                users.c.suspended_until <= self._clock.now(),
            )
            .order_by(users.c.suspended_until)
            .limit(limit)
        )
        with reading() as connection:
            user_ids = list(connection.scalars(due))
        actor = system_actor("worker")
        lifted = 0
        for user_id in user_ids:
            with transaction() as session:
                # Another process may have deleted or activated the user since the query.
                user = session.get(User, user_id, with_for_update=True)
                if user is not None and lift_suspension(
                    self._accounts, session, user, actor=actor, now=self._clock.now()
                ):
                    lifted += 1
        return lifted

    def require_future(self, until: datetime | None) -> None:
        """Raise Invalid if a suspension would end in the past."""
        if until is not None and until <= self._clock.now():
            raise invalid_field("until", "Must be a time in the future.", "in_the_past")

    # Steps of other use cases, inside their transaction

    def change_status(
        self, session: Session, user: User, status: UserStatus, *, actor: Actor
    ) -> None:
        """Activate or suspend a locked user. Raises what `suspend` and `activate` raise."""
        if status is UserStatus.SUSPENDED:
            self._suspend_locked(session, user, actor=actor)
        elif status is UserStatus.ACTIVE:
            activate_locked(self._accounts, session, user, actor=actor)
        else:
            require_transition(user, status)

    def _suspend_locked(
        self,
        session: Session,
        user: User,
        *,
        actor: Actor,
        reason: str | None = None,
        until: datetime | None = None,
    ) -> None:
        if actor.is_user(user.id):
            raise SelfActionRefused()
        require_transition(user, UserStatus.SUSPENDED)
        require_not_last_superadmin(user, role_names_of(session, user.id))
        before = user.status
        user.status = UserStatus.SUSPENDED
        user.status_reason = reason
        user.suspended_until = until
        view = self._accounts.save(
            session,
            user,
            AuditAction.USER_SUSPENDED,
            EventType.USER_SUSPENDED,
            actor=actor,
            changes={"status": (before, str(UserStatus.SUSPENDED))},
            details={"reason": reason, "until": until.isoformat() if until else None},
        )
        self._one_time_tokens.void_all(user.id)
        self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.ACCOUNT_SUSPENDED)
