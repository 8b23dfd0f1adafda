"""Removing a second factor."""

from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.factors.enforcement import MfaEnforcement
from userapi.factors.errors import FactorNotFound, MfaRequiredByRole
from userapi.factors.listing import FactorView, factors_of
from userapi.factors.renaming import TABLES
from userapi.factors.service import Factors, MfaChangeReason, audited
from userapi.infrastructure.database import transaction
from userapi.mail.models import MailKind
from userapi.recorder import Recorder
from userapi.roles.service import Roles
from userapi.sessions.service import EndReason, Sessions


class FactorRemoval:
    """Removes factors of the signed-in user."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        roles: Roles,
        enforcement: MfaEnforcement,
        factors: Factors,
        sessions: Sessions,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._roles = roles
        self._enforcement = enforcement
        self._factors = factors
        self._sessions = sessions

    def remove(self, user_id: UUID, factor_id: UUID, *, actor: Actor) -> None:
        """Remove a factor, and end all sessions of the user except that of the actor.

        With the last factor the recovery codes are deleted: sign-in requires only the password
        again. Raises FactorNotFound, and MfaRequiredByRole for the last one where a role demands
        one.
        """
        with transaction() as session:
            user, role_names = self._accounts.locked(session, user_id)
            present = factors_of(session, user_id)
            removed = next((factor for factor in present if factor.id == factor_id), None)
            if removed is None:
                raise FactorNotFound()
            is_last = len(present) == 1
            if is_last and self._enforcement.demands(role_names, self._roles.graph_now()):
                raise MfaRequiredByRole()
            self._recorder.audit.record(
                AuditAction.MFA_FACTOR_REMOVED,
                actor=actor,
                target=("user", user_id),
                details=audited(removed),
            )
            view = self._without(session, user, removed, is_last=is_last, actor=actor)
            self._sessions.end_all(
                user=view.facts,
                actor=actor,
                reason=EndReason.FACTOR_REMOVED,
                keep=actor.session_id,
            )

    def _without(
        self, session: Session, user: User, removed: FactorView, *, is_last: bool, actor: Actor
    ) -> UserView:
        data = {"factor": removed.name}
        if is_last:
            self._factors.notify(MailKind.MFA_DISABLED, user, actor=actor, data=data)
            return self._factors.switch_off(session, user, MfaChangeReason.SELF, actor=actor)
        table = TABLES[removed.type]
        session.execute(delete(table).where(table.c.id == removed.id))
        self._factors.notify(MailKind.FACTOR_REMOVED, user, actor=actor, data=data)
        return self._accounts.view(session, user.id)
