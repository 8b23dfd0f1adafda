"""Two-step sign-in of an account: on with its first factor, off with its last one.

These are steps of use cases, inside their transaction, in which they hold the lock on the user.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.accounts.views import UserView, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import Unavailable
from userapi.events.catalogue import EventType, UserEvent
from userapi.factors.listing import FactorView
from userapi.factors.models import Passkey, TotpFactor
from userapi.factors.recovery_codes import NewCodes, RecoveryCodes
from userapi.infrastructure.database import reading, table_of
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.recorder import Recorder
from userapi.sessions.pending_sign_ins import end_sign_ins_of
from userapi.sessions.service import EndReason, Sessions


class MfaChangeReason(StrEnum):
    """Who enabled or disabled two-step sign-in of an account."""

    ADMIN = "admin"
    SELF = "self"
    SYSTEM = "system"


class Factors:
    """Records added factors, and enables and disables two-step sign-in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        sessions: Sessions,
        mails: MailQueue,
        recovery_codes: RecoveryCodes,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._sessions = sessions
        self._mails = mails
        self._recovery_codes = recovery_codes

    def prepare_codes(self, user_id: UUID) -> NewCodes | None:
        """Return recovery codes for a user without factors; None for any other user.

        Call it before the transaction that calls `added`: it hashes the codes. Raises Busy.
        """
        with reading() as connection:
            enabled = connection.scalar(select(users.c.mfa_enabled).where(users.c.id == user_id))
        return None if enabled else self._recovery_codes.generate()

    def added(
        self,
        session: Session,
        user: User,
        factor: FactorView,
        *,
        codes: NewCodes | None,
        actor: Actor,
        keep: UUID,
    ) -> tuple[str, ...] | None:
        """Record a factor that the open transaction has added to a locked user.

        The first factor enables two-step sign-in: it ends all sessions except `keep`, stores
        `codes` and returns them. Raises Unavailable if the user has no factor by now and had one
        when the codes were prepared; a retry succeeds.
        """
        self._recorder.audit.record(
            AuditAction.MFA_FACTOR_ADDED,
            actor=actor,
            target=("user", user.id),
            details=audited(factor),
        )
        self.notify(MailKind.FACTOR_ADDED, user, actor=actor, data={"factor": factor.name})
        if user.mfa_enabled:
            return None
        if codes is None:
            raise Unavailable()
        user.mfa_enabled = True
        self.store_codes(user, codes, actor=actor)
        view = self._saved(session, user, EventType.USER_MFA_ENABLED, MfaChangeReason.SELF, actor)
        self._sessions.end_all(
            user=view.facts, actor=actor, reason=EndReason.MFA_ENABLED, keep=keep
        )
        return codes.texts

    def store_codes(self, user: User, codes: NewCodes, *, actor: Actor) -> None:
        """Replace the recovery codes of a locked user."""
        self._recovery_codes.store(user.id, codes, now=self._recorder.now())
        self._recorder.audit.record(
            AuditAction.MFA_RECOVERY_CODES_CREATED, actor=actor, target=("user", user.id)
        )

    def switch_off(
        self, session: Session, user: User, reason: MfaChangeReason, *, actor: Actor
    ) -> UserView:
        """Delete all factors and recovery codes of a locked user, and return the user after that.

        Sign-ins whose second step is missing end; the caller ends the sessions.
        """
        user.mfa_enabled = False
        for model in (TotpFactor, Passkey):
            table = table_of(model)
            session.execute(delete(table).where(table.c.user_id == user.id))
        self._recovery_codes.delete(user.id)
        end_sign_ins_of([user.id])
        return self._saved(session, user, EventType.USER_MFA_DISABLED, reason, actor)

    def notify(
        self,
        kind: MailKind,
        user: User,
        *,
        actor: Actor,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Send the user a mail about a change."""
        self._mails.enqueue(
            kind,
            recipient=user.email,
            user_id=user.id,
            data=data,
            correlation_id=actor.correlation_id,
        )

    def _saved(
        self,
        session: Session,
        user: User,
        event: EventType,
        reason: MfaChangeReason,
        actor: Actor,
    ) -> UserView:
        self._accounts.bump_version(user)
        session.flush()
        view = self._accounts.view(session, user.id)
        self._recorder.outbox.append(
            UserEvent(type=event, user=view.facts, reason=reason), actor=actor
        )
        return view


def audited(factor: FactorView) -> dict[str, Any]:
    """Return what the audit log contains about a factor: no secret and no credential id."""
    return {"factor_id": factor.id, "type": factor.type, "name": factor.name}
