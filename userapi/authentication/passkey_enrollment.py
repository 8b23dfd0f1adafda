"""Enrollment: the signed-in user adds a passkey, and the session continues with new tokens."""

from collections.abc import Mapping
from typing import Any

from userapi.actor import Actor
from userapi.authentication.app_confirmation import AddedFactor
from userapi.authentication.owners import lock_active_user, view_of
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.token_pairs import TokenPairs
from userapi.authentication.token_status import SessionReference
from userapi.errors import ServiceError
from userapi.factors.passkey_registration import PasskeyRegistration
from userapi.factors.service import Factors
from userapi.infrastructure.database import transaction
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PASSKEY


class PasskeyEnrollment:
    """Adds passkeys to the account of the signed-in user."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        registration: PasskeyRegistration,
        factors: Factors,
        renewal: SessionRenewal,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._registration = registration
        self._factors = factors
        self._renewal = renewal
        self._token_pairs = token_pairs

    def add(
        self,
        own: SessionReference,
        credential: Mapping[str, Any],
        *,
        name: str | None,
        actor: Actor,
    ) -> AddedFactor:
        """Add a passkey that was created for options of this session, and renew the session.

        All earlier tokens of the session are invalid. Raises PasskeysDisabled, PasskeyRejected,
        PasskeyTaken, TooManyFactors, Busy, and TokenRevoked if the session has ended or was
        renewed.
        """
        self._registration.require_available()
        answer = self._registration.read(credential)
        codes = self._factors.prepare_codes(own.user_id)
        with transaction() as session:
            user = lock_active_user(session, own.user_id)
            current = self._renewal.lock(session, own)
            outcome = self._registration.add(
                session,
                answer,
                user_id=user.id,
                session_id=current.id,
                name=name,
                user_agent=actor.user_agent,
            )
            if not isinstance(outcome, ServiceError):
                texts = self._factors.added(
                    session, user, outcome, codes=codes, actor=actor, keep=current.id
                )
                self._renewal.renew(current, proved=PASSKEY)
                session.flush()
                view = view_of(session, user.id, self._recorder.now())
        if isinstance(outcome, ServiceError):
            raise outcome
        return AddedFactor(
            factor=outcome, recovery_codes=texts, pair=self._token_pairs.issue(current, view)
        )
