"""Reset of two-step sign-in: an administrator or operator removes all second factors."""

from uuid import UUID

from userapi.accounts.errors import SelfActionRefused
from userapi.accounts.service import Accounts
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.factors.listing import factors_of
from userapi.factors.methods import FactorType
from userapi.factors.service import Factors, MfaChangeReason
from userapi.infrastructure.database import transaction
from userapi.mail.models import MailKind
from userapi.recorder import Recorder
from userapi.sessions.service import EndReason, Sessions


class MfaReset:
    """Removes all second factors of another user, who then signs in with the password alone."""

    def __init__(
        self, *, recorder: Recorder, accounts: Accounts, factors: Factors, sessions: Sessions
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._factors = factors
        self._sessions = sessions

    def reset(self, user_id: UUID, *, actor: Actor) -> bool:
        """Remove all factors and recovery codes of a user, and end all their sessions.

        Returns whether there were any; without any, nothing else happens. Password and status
        stay. Raises UserNotFound, InsufficientRank, SelfActionRefused.
        """
        if actor.is_user(user_id):
            raise SelfActionRefused()
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            if not user.mfa_enabled:
                return False
            types = [factor.type for factor in factors_of(session, user_id)]
            self._accounts.clear_wrong_codes(user)
            reason = (
                MfaChangeReason.SYSTEM if actor.type is ActorType.SYSTEM else MfaChangeReason.ADMIN
            )
            view = self._factors.switch_off(session, user, reason, actor=actor)
            self._recorder.audit.record(
                AuditAction.MFA_RESET,
                actor=actor,
                target=("user", user_id),
                details={type_: types.count(type_) for type_ in FactorType},
            )
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.MFA_RESET)
            self._factors.notify(MailKind.MFA_RESET, user, actor=actor)
        return True
