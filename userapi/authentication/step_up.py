"""Step-up: the user of a session proves their identity again (RFC 9470).

The session continues with a new pair of tokens and a fresh authentication. Its end stays the same.
"""

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.owners import lock_active_user, view_of
from userapi.authentication.password_check import PasswordCheck
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.factors.errors import MfaRequired
from userapi.infrastructure.database import transaction
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PWD
from userapi.sessions.status import LiveSession


class StepUp:
    """Makes sessions fresh."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        renewal: SessionRenewal,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._renewal = renewal
        self._token_pairs = token_pairs

    def with_password(self, own: LiveSession, password: str, *, actor: Actor) -> TokenPair:
        """Return a new pair for the session of a user without a second factor.

        A wrong password counts as a failed log-in of the user name. Raises MfaRequired without
        looking at the password if the user has a factor, Busy, InvalidCredentials,
        TooManyAttempts, and TokenRevoked if the session has ended or was renewed.
        """
        if own.mfa_enabled:
            raise MfaRequired()
        self._password_check.require_current(own.user_id, password, actor=actor)
        with transaction() as session:
            user = lock_active_user(session, own.user_id)
            # A first factor that was added since has renewed this session or ended it.
            locked = self._renewal.lock(session, own)
            self._renewal.renew(locked, proved=PWD)
            session.flush()
            view = view_of(session, user.id, self._recorder.now())
            self._recorder.audit.record(
                AuditAction.AUTH_STEP_UP,
                actor=actor,
                target=("session", locked.id),
                details={"acr": locked.acr, "amr": locked.authentication.amr, "factor": "password"},
            )
        return self._token_pairs.issue(locked, view)
