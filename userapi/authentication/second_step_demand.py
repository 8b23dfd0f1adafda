"""The demand for a second step: a sign-in waits for it after the correct password."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.factors.errors import MfaRequired
from userapi.factors.listing import FactorList
from userapi.recorder import Recorder
from userapi.sessions.pending_sign_ins import PendingSignIns


class SecondStepDemand:
    """Opens sign-ins that wait for the second step."""

    def __init__(self, *, recorder: Recorder, pending: PendingSignIns, factors: FactorList) -> None:
        self._recorder = recorder
        self._pending = pending
        self._factors = factors

    def open(
        self,
        session: Session,
        user: User,
        *,
        lockout_key: str,
        amr: Sequence[str],
        remember_me: bool,
        actor: Actor,
    ) -> MfaRequired:
        """Open a sign-in of a locked user in the open transaction, and return the refusal.

        It contains the mfa_token; the caller raises it after the commit.
        """
        methods = self._factors.methods(session, user.id)
        token = self._pending.open(
            user.id, lockout_key=lockout_key, amr=amr, remember_me=remember_me
        )
        self._recorder.audit.record(
            AuditAction.AUTH_MFA_REQUIRED,
            actor=actor,
            target=("user", user.id),
            details={"methods": methods},
        )
        return MfaRequired(
            mfa_token=token,
            methods=[str(method) for method in methods],
            expires_in=int(self._pending.lifetime.total_seconds()),
        )
