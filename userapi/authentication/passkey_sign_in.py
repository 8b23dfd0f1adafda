"""Sign-in with a passkey and without a password: starts a session and returns its tokens."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from userapi.accounts.activation import lift_suspension
from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.log_in import status_refusal
from userapi.authentication.owners import as_user
from userapi.authentication.sign_in_completion import SignedIn, SignInCompletion
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import ServiceError
from userapi.factors.challenges import Ceremony, Purpose
from userapi.factors.credentials import AssertionAnswer
from userapi.factors.passkey_assertion import PasskeyAssertion
from userapi.factors.passkey_errors import (
    PasskeyFault,
    PasskeyInvalid,
    PasskeysDisabled,
    PasskeyUnknown,
)
from userapi.factors.passkeys import PasskeyOptions
from userapi.infrastructure.database import transaction
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PASSKEY
from userapi.sessions.models import SessionKind

CEREMONY = Ceremony(purpose=Purpose.SIGN_IN)
HOW = {"method": "passkey", "step": "passkey", "factor": "passkey"}


class PasskeySignIn:
    """Signs users in with passkeys."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        assertion: PasskeyAssertion,
        accounts: Accounts,
        completion: SignInCompletion,
        token_pairs: TokenPairs,
        enabled: bool,
    ) -> None:
        self._recorder = recorder
        self._assertion = assertion
        self._accounts = accounts
        self._completion = completion
        self._token_pairs = token_pairs
        self._enabled = enabled

    def require_available(self) -> None:
        """Raise PasskeysDisabled if signing in with a passkey alone is off."""
        if not self._enabled:
            raise PasskeysDisabled()

    def options(self) -> PasskeyOptions:
        """Return the options, which are the same for everyone. Nothing is stored.

        Raises PasskeysDisabled.
        """
        self.require_available()
        return self._assertion.options_for_everyone()

    def with_credential(
        self,
        credential: Mapping[str, Any],
        *,
        actor: Actor,
        remember_me: bool = False,
        kind: SessionKind = SessionKind.API,
    ) -> TokenPair:
        """Start a session for the user of a passkey.

        Locks of passwords and codes do not prevent it, and it does not clear them. Raises
        PasskeysDisabled, PasskeyUnknown, PasskeyInvalid, and for a valid passkey AccountSuspended
        or AccountPending.
        """
        self.require_available()
        answer = self._assertion.read(credential)
        with transaction() as session:
            outcome = self._decide(session, answer, actor, remember_me, kind)
        if isinstance(outcome, ServiceError):
            raise outcome
        return self._token_pairs.issue(
            outcome.session,
            outcome.user,
            catalogue_version=outcome.catalogue_version,
            user=outcome.user,
        )

    def _decide(
        self,
        session: Session,
        answer: AssertionAnswer | None,
        actor: Actor,
        remember_me: bool,
        kind: SessionKind,
    ) -> SignedIn | ServiceError:
        """Start a session, or return the refusal, whose records the transaction keeps.

        The status is read from the locked row, so a concurrent suspension ends the session.
        """
        user = self._lock_owner(session, answer)
        if user is None:
            fault = PasskeyFault.MALFORMED if answer is None else PasskeyFault.UNKNOWN_CREDENTIAL
            return self._refused(None, fault, actor)
        found = self._assertion.verify(answer, user_id=user.id, ceremony=CEREMONY, actor=actor)
        if found is not None:
            return self._refused(user, found, actor)
        now = self._recorder.now()
        lift_suspension(self._accounts, session, user, actor=actor, now=now)
        actor = as_user(actor, user)
        refusal = status_refusal(user)
        if refusal is not None:
            self._record(user, Outcome.DENIED, reason=refusal.code, actor=actor)
            return refusal
        return self._completion.complete(
            user,
            actor=actor,
            methods=PASSKEY,
            passed=(),
            remember_me=remember_me,
            kind=kind,
            details=HOW,
        )

    def _lock_owner(self, session: Session, answer: AssertionAnswer | None) -> User | None:
        """Return the user who has the passkey, locked."""
        owner_id = None if answer is None else self._assertion.owner_of(session, answer)
        return None if owner_id is None else session.get(User, owner_id, with_for_update=True)

    def _refused(self, user: User | None, fault: PasskeyFault, actor: Actor) -> ServiceError:
        """Record a failed sign-in and return its error."""
        self._record(user, Outcome.FAILURE, reason=fault, actor=actor)
        if fault is PasskeyFault.UNKNOWN_CREDENTIAL:
            return PasskeyUnknown()
        return PasskeyInvalid()

    def _record(self, user: User | None, outcome: Outcome, *, reason: str, actor: Actor) -> None:
        self._recorder.audit.record(
            AuditAction.AUTH_LOGIN,
            actor=actor,
            target=None if user is None else ("user", user.id),
            outcome=outcome,
            details={**HOW, "reason": reason},
        )
