"""Deletion: a user is removed with their sessions. Audit rows stay."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.orm import Session

from userapi.accounts.errors import SelfActionRefused
from userapi.accounts.models import User
from userapi.accounts.service import Accounts, require_not_last_superadmin
from userapi.accounts.views import users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.infrastructure.idempotency_keys import drop_answers_about
from userapi.sessions.service import EndReason, Sessions


class AccountDeletion:
    """Deletes accounts."""

    def __init__(self, *, accounts: Accounts, sessions: Sessions) -> None:
        self._accounts = accounts
        self._sessions = sessions

    def delete(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
        reason: str | None = None,
    ) -> None:
        """Delete a user. Their name and address can be used again.

        Raises UserNotFound, SelfActionRefused, Stale, InsufficientRank, LastSuperadmin.
        """
        if actor.is_user(user_id):
            raise SelfActionRefused()
        with transaction() as session:
            user, role_names = self._accounts.locked_for(actor, session, user_id, if_match=if_match)
            self.remove(session, user, role_names, actor=actor, reason=reason)

    def remove(
        self,
        session: Session,
        user: User,
        role_names: Collection[str],
        *,
        actor: Actor,
        reason: str | None = None,
    ) -> None:
        """Delete a locked user, in the open transaction. Raises LastSuperadmin."""
        require_not_last_superadmin(user, role_names)
        view = self._accounts.view(session, user.id)
        self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.ACCOUNT_DELETED)
        self._accounts.clear_all_failures(user)
        self._accounts.record(
            view,
            AuditAction.USER_DELETED,
            EventType.USER_DELETED,
            actor=actor,
            details={"username": user.username, "reason": reason},
        )
        self._accounts.invalidate_cached_sessions(user)
        drop_answers_about(user.id)
        session.execute(delete(users).where(users.c.id == user.id))
