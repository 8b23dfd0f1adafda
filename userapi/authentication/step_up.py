"""Step-up: the user of a session proves their identity again (RFC 9470).

The session continues with a new pair of tokens and a fresh authentication. Its end stays the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import lock_active_user, view_of
from userapi.authentication.password_check import PasswordCheck
from userapi.authentication.refusals import TokenRevoked
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import ServiceError
from userapi.factors.challenges import Ceremony, Purpose
from userapi.factors.codes import AcceptedCode, CodeCheck, TriedCode
from userapi.factors.errors import InvalidCode, MfaNotEnabled, MfaRequired
from userapi.factors.listing import FactorList
from userapi.factors.methods import AMR, Method
from userapi.factors.passkey_assertion import PasskeyAssertion
from userapi.factors.passkey_errors import PasskeyInvalid
from userapi.factors.passkeys import PasskeyOptions
from userapi.infrastructure.database import reading, transaction
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PASSKEY, PWD
from userapi.sessions.models import UserSession
from userapi.sessions.status import LiveSession


@dataclass(frozen=True, slots=True)
class Renewed:
    """A session that was renewed, and its user."""

    session: UserSession
    user: UserView


class StepUp:
    """Makes sessions fresh."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        codes: CodeCheck,
        passkeys: PasskeyAssertion,
        factors: FactorList,
        renewal: SessionRenewal,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._codes = codes
        self._passkeys = passkeys
        self._factors = factors
        self._renewal = renewal
        self._token_pairs = token_pairs

    def with_password(self, own: LiveSession, password: str, *, actor: Actor) -> TokenPair:
        """Return a new pair for the session of a user without a second factor.

        A wrong password counts as a failed log-in of the user name. Raises MfaRequired without
        looking at the password if the user has a factor, Busy, InvalidCredentials,
        TooManyAttempts, and TokenRevoked if the session has ended or was renewed.
        """
        if own.mfa_enabled:
            with reading() as connection:
                methods = self._factors.methods(connection, own.user_id)
            raise MfaRequired(methods=[str(method) for method in methods])
        self._password_check.require_current(own.user_id, password, actor=actor)
        with transaction() as session:
            lock_active_user(session, own.user_id)
            # A first factor that was added since has renewed this session or ended it.
            locked = self._renewal.lock(session, own)
            renewed = self._renew(session, locked, factor="password", proved=PWD, actor=actor)
        return self._token_pairs.issue(renewed.session, renewed.user)

    def with_code(self, own: LiveSession, code: str, *, actor: Actor) -> TokenPair:
        """Return a new pair for the session of a user who has a second factor.

        A wrong code is counted like one of the second step. Raises MfaNotEnabled, TooManyAttempts,
        InvalidCode, Busy, Unavailable if no key decrypts the secrets of the user's apps, and
        TokenRevoked if the session has ended or was renewed.
        """
        if not own.mfa_enabled:
            raise MfaNotEnabled()
        tried = self._codes.begin(own.user_id, code, actor=actor)
        with transaction() as session:
            outcome = self._try_code(session, own, tried, actor=actor)
        if isinstance(outcome, ServiceError):
            raise outcome
        return self._token_pairs.issue(outcome.session, outcome.user)

    def passkey_options(self, own: LiveSession) -> PasskeyOptions:
        """Return the options for a passkey of the user, which are valid for this session only.

        Raises MfaMethodUnavailable.
        """
        return self._passkeys.options_of(own.user_id, _ceremony(own.session_id))

    def with_credential(
        self, own: LiveSession, credential: Mapping[str, Any], *, actor: Actor
    ) -> TokenPair:
        """Return a new pair for the session of a user who has used a passkey.

        A failure increases no counter, and a lock of the codes does not prevent it. Raises
        MfaNotEnabled, PasskeyInvalid, and TokenRevoked if the session has ended or was renewed.
        """
        if not own.mfa_enabled:
            raise MfaNotEnabled()
        answer = self._passkeys.read(credential)
        with transaction() as session:
            user = lock_active_user(session, own.user_id)
            locked = self._renewal.lock(session, own)
            fault = self._passkeys.verify(
                answer, user_id=user.id, ceremony=_ceremony(locked.id), actor=actor
            )
            if fault is None:
                outcome: Renewed | ServiceError = self._renew(
                    session, locked, factor=Method.PASSKEY, proved=PASSKEY, actor=actor
                )
            else:
                self._record_failure(own, Method.PASSKEY, reason=fault, actor=actor)
                outcome = PasskeyInvalid()
        if isinstance(outcome, ServiceError):
            raise outcome
        return self._token_pairs.issue(outcome.session, outcome.user)

    def _try_code(
        self, session: Session, own: LiveSession, tried: TriedCode, *, actor: Actor
    ) -> Renewed | ServiceError:
        """Renew the session in the open transaction, or return the error that refuses it."""
        try:
            user = lock_active_user(session, own.user_id)
            locked = self._renewal.lock(session, own)
        except TokenRevoked as refusal:
            self._codes.release(tried)
            return refusal
        accepted = self._codes.finish(user, tried, actor=actor)
        if isinstance(accepted, AcceptedCode):
            proved = AMR[accepted.method]
            return self._renew(session, locked, factor=accepted.method, proved=proved, actor=actor)
        self._record_failure(own, tried.method, reason=accepted, actor=actor)
        return InvalidCode()

    def _record_failure(
        self, own: LiveSession, factor: Method, *, reason: str, actor: Actor
    ) -> None:
        self._recorder.audit.record(
            AuditAction.AUTH_STEP_UP,
            actor=actor,
            target=("session", own.session_id),
            outcome=Outcome.FAILURE,
            details={"factor": factor, "reason": reason},
        )

    def _renew(
        self,
        session: Session,
        locked: UserSession,
        *,
        factor: str,
        proved: Sequence[str],
        actor: Actor,
    ) -> Renewed:
        self._renewal.renew(locked, proved=proved)
        session.flush()
        view = view_of(session, locked.user_id, self._recorder.now())
        self._recorder.audit.record(
            AuditAction.AUTH_STEP_UP,
            actor=actor,
            target=("session", locked.id),
            details={"acr": locked.acr, "amr": locked.authentication.amr, "factor": factor},
        )
        return Renewed(locked, view)


def _ceremony(session_id: UUID) -> Ceremony:
    return Ceremony(purpose=Purpose.STEP_UP, bound_to=session_id)
