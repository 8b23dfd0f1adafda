"""Assertion: an authenticator proves that its user holds a passkey (WebAuthn Level 3 §7.2)."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.factors.challenges import Ceremony, Challenges, Purpose
from userapi.factors.credentials import (
    AssertionAnswer,
    AuthenticatorState,
    KnownCredential,
    MalformedCredential,
    read_assertion,
)
from userapi.factors.errors import MfaMethodUnavailable
from userapi.factors.methods import Method, MfaOutcome
from userapi.factors.models import Passkey
from userapi.factors.passkey_errors import PasskeyFault, ResponseRejected
from userapi.factors.passkeys import PasskeyOptions, known_credentials, load_library
from userapi.factors.relying_party import RelyingParty
from userapi.factors.user_handles import find_user_handle
from userapi.infrastructure.database import after_commit, reading, require_transaction
from userapi.recorder import Recorder


class PasskeyAssertion:
    """Issues the options of assertions, and verifies them in the transaction of a use case."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        challenges: Challenges,
        relying_party: RelyingParty,
        count: Callable[[Method, MfaOutcome], None],
    ) -> None:
        self._recorder = recorder
        self._challenges = challenges
        self._party = relying_party
        self._count = count

    def options_for_everyone(self) -> PasskeyOptions:
        """Return options to sign in with any passkey of any account. Nothing is stored."""
        return self._options(Ceremony(purpose=Purpose.SIGN_IN), [])

    def options_of(self, user_id: UUID, ceremony: Ceremony) -> PasskeyOptions:
        """Return options that list the passkeys of a user. Raises MfaMethodUnavailable."""
        with reading() as connection:
            allowed = known_credentials(connection, user_id, rp_id=self._party.id)
        if not allowed:
            raise MfaMethodUnavailable()
        return self._options(ceremony, allowed)

    def read(self, credential: Mapping[str, Any]) -> AssertionAnswer | None:
        """Return a decoded response; None if it cannot be read. Call it before the transaction."""
        load_library()
        try:
            return read_assertion(credential)
        except MalformedCredential:
            return None

    def owner_of(self, session: Session, answer: AssertionAnswer) -> UUID | None:
        """Return the id of the user who has this passkey, if any account has it."""
        owner: UUID | None = session.scalar(
            select(Passkey.user_id).where(Passkey.credential_id == answer.credential_id)
        )
        return owner

    def verify(
        self,
        answer: AssertionAnswer | None,
        *,
        user_id: UUID,
        ceremony: Ceremony,
        actor: Actor,
    ) -> PasskeyFault | None:
        """Verify the response of a locked user and store its use; return the fault, if it has one.

        It needs the open transaction of the use case.

        It also records the challenge as used if the passkey has signed the response, whatever else
        is wrong. The caller commits in both cases.
        """
        fault = self._verify(require_transaction(), answer, user_id, ceremony, actor)
        outcome = MfaOutcome.SUCCESS if fault is None else MfaOutcome.FAILURE
        after_commit(lambda: self._count(Method.PASSKEY, outcome))
        return fault

    def _verify(
        self,
        session: Session,
        answer: AssertionAnswer | None,
        user_id: UUID,
        ceremony: Ceremony,
        actor: Actor,
    ) -> PasskeyFault | None:
        if answer is None:
            return PasskeyFault.MALFORMED
        passkey = session.scalars(
            select(Passkey)
            .where(Passkey.credential_id == answer.credential_id, Passkey.user_id == user_id)
            .with_for_update()
        ).one_or_none()
        if passkey is None:
            return PasskeyFault.UNKNOWN_CREDENTIAL
        challenge = self._challenges.read(answer.client_data.challenge)
        if challenge is None:
            return PasskeyFault.CHALLENGE
        checked = self._check(answer, passkey)
        if checked is PasskeyFault.SIGNATURE:
            return PasskeyFault.SIGNATURE
        if not self._challenges.use(session, challenge):
            return PasskeyFault.CHALLENGE
        if challenge.ceremony != ceremony or not self._challenges.is_fresh(challenge):
            return PasskeyFault.CHALLENGE
        if isinstance(checked, PasskeyFault):
            if checked is PasskeyFault.COUNTER:
                self._suspect_clone(passkey, actor)
            return checked
        fault = self._own_fault(session, answer, passkey, checked, ceremony)
        if fault is None:
            passkey.sign_count = checked.sign_count
            passkey.backed_up = checked.backed_up
            passkey.last_used_at = self._recorder.now()
        return fault

    def _options(self, ceremony: Ceremony, allowed: list[KnownCredential]) -> PasskeyOptions:
        # Imported here because it loads the library.
        from userapi.factors.webauthn_options import request_options

        challenge = self._challenges.issue(ceremony)
        return PasskeyOptions(
            public_key=request_options(self._party, challenge=challenge, allowed=allowed)
        )

    def _check(
        self, answer: AssertionAnswer, passkey: Passkey
    ) -> AuthenticatorState | PasskeyFault:
        # Imported here because it loads the library.
        from userapi.factors.webauthn_verification import verify_assertion

        # Copies of a synchronized passkey have separate counters, or none (§6.1.1).
        sign_count = 0 if passkey.backup_eligible else passkey.sign_count
        try:
            return verify_assertion(
                answer,
                party=self._party,
                public_key=passkey.public_key,
                sign_count=sign_count,
            )
        except ResponseRejected as exc:
            return exc.fault

    def _own_fault(
        self,
        session: Session,
        answer: AssertionAnswer,
        passkey: Passkey,
        state: AuthenticatorState,
        ceremony: Ceremony,
    ) -> PasskeyFault | None:
        """Return a fault that the library does not look for."""
        if answer.client_data.is_embedded:
            return PasskeyFault.CROSS_ORIGIN
        if state.backup_eligible != passkey.backup_eligible:
            return PasskeyFault.BACKUP_FLAGS
        handle = answer.user_handle
        if handle is None and ceremony.purpose is Purpose.SIGN_IN:
            return PasskeyFault.USER_HANDLE
        if handle is not None and handle != find_user_handle(session, passkey.user_id):
            return PasskeyFault.USER_HANDLE
        return None

    def _suspect_clone(self, passkey: Passkey, actor: Actor) -> None:
        self._recorder.audit.record(
            AuditAction.AUTH_PASSKEY_CLONE_SUSPECTED,
            actor=actor,
            target=("user", passkey.user_id),
            outcome=Outcome.DENIED,
            details={"passkey_id": str(passkey.id), "stored_count": passkey.sign_count},
        )
