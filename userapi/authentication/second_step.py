"""The second step of a sign-in: an mfa_token and a code or a passkey start the session."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from userapi.accounts.models import User, UserStatus
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import as_user
from userapi.authentication.sign_in_completion import SignedIn, SignInCompletion
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import ServiceError
from userapi.factors.challenges import Ceremony, Purpose
from userapi.factors.codes import AcceptedCode, CodeCheck, TriedCode
from userapi.factors.credentials import AssertionAnswer
from userapi.factors.errors import InvalidCode, MfaTokenInvalid
from userapi.factors.methods import AMR, Method
from userapi.factors.passkey_assertion import PasskeyAssertion
from userapi.factors.passkey_errors import PasskeyInvalid
from userapi.factors.passkeys import PasskeyOptions
from userapi.infrastructure.database import require_transaction, transaction
from userapi.recorder import Recorder
from userapi.sessions.models import SessionKind
from userapi.sessions.pending_sign_ins import OpenSignIn, PendingSignIns


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondStepResult:
    """The tokens of a complete sign-in; `recovery_codes_left` if it has used one of those."""

    pair: TokenPair
    recovery_codes_left: int | None


class SecondStep:
    """Completes sign-ins whose password was correct."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        pending: PendingSignIns,
        codes: CodeCheck,
        passkeys: PasskeyAssertion,
        completion: SignInCompletion,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._pending = pending
        self._codes = codes
        self._passkeys = passkeys
        self._completion = completion
        self._token_pairs = token_pairs

    def find(self, mfa_token: str) -> OpenSignIn:
        """Return the sign-in of an mfa_token. Raises MfaTokenInvalid."""
        found = self._pending.find(mfa_token)
        if found is None:
            raise MfaTokenInvalid()
        return found

    def with_code(
        self,
        mfa_token: str,
        code: str,
        *,
        actor: Actor,
        kind: SessionKind = SessionKind.API,
    ) -> SecondStepResult:
        """Start the session of a sign-in with the code of an app or a recovery code.

        A wrong code counts for the mfa_token and for the account. Raises MfaTokenInvalid,
        TooManyAttempts, InvalidCode, Busy, and Unavailable if no key decrypts the secrets of the
        user's apps; only InvalidCode counts as an attempt of the token.
        """
        tried = self._codes.begin(self.find(mfa_token).user_id, code, actor=actor)
        with transaction():
            outcome = self._try_code(mfa_token, tried, actor=actor, kind=kind)
        if isinstance(outcome, ServiceError):
            raise outcome
        signed_in, accepted = outcome
        return SecondStepResult(
            pair=self._issue(signed_in), recovery_codes_left=accepted.recovery_codes_left
        )

    def passkey_options(self, mfa_token: str) -> PasskeyOptions:
        """Return the options to complete a sign-in with a passkey.

        This does not count as an attempt. Raises MfaTokenInvalid, MfaMethodUnavailable.
        """
        found = self.find(mfa_token)
        return self._passkeys.options_of(found.user_id, _ceremony(found))

    def with_credential(
        self,
        mfa_token: str,
        credential: Mapping[str, Any],
        *,
        actor: Actor,
        kind: SessionKind = SessionKind.API,
    ) -> SecondStepResult:
        """Start the session of a sign-in with a passkey of its user.

        A failure counts as an attempt of the mfa_token, but increases no counter of wrong codes. A
        lock of the codes does not stop it. Raises MfaTokenInvalid, PasskeyInvalid.
        """
        answer = self._passkeys.read(credential)
        user_id = self.find(mfa_token).user_id
        with transaction():
            outcome = self._try_passkey(mfa_token, user_id, answer, actor=actor, kind=kind)
        if isinstance(outcome, ServiceError):
            raise outcome
        return SecondStepResult(pair=self._issue(outcome), recovery_codes_left=None)

    def _try_code(
        self, mfa_token: str, tried: TriedCode, *, actor: Actor, kind: SessionKind
    ) -> tuple[SignedIn, AcceptedCode] | ServiceError:
        """Complete the sign-in in the open transaction, or return the error that refuses it."""
        user, sign_in = self._locked(mfa_token, tried.user_id)
        if user is None or sign_in is None:
            self._codes.release(tried)
            return MfaTokenInvalid()
        accepted = self._codes.finish(user, tried, actor=as_user(actor, user))
        if not isinstance(accepted, AcceptedCode):
            self._record_failure(user, sign_in, tried.method, reason=accepted, actor=actor)
            return InvalidCode()
        return self._complete(user, sign_in, accepted.method, actor=actor, kind=kind), accepted

    def _try_passkey(
        self,
        mfa_token: str,
        user_id: UUID,
        answer: AssertionAnswer | None,
        *,
        actor: Actor,
        kind: SessionKind,
    ) -> SignedIn | ServiceError:
        """Complete the sign-in in the open transaction, or return the error that refuses it."""
        user, sign_in = self._locked(mfa_token, user_id)
        if user is None or sign_in is None:
            return MfaTokenInvalid()
        fault = self._passkeys.verify(
            answer, user_id=user.id, ceremony=_ceremony(sign_in), actor=as_user(actor, user)
        )
        if fault is not None:
            self._record_failure(user, sign_in, Method.PASSKEY, reason=fault, actor=actor)
            return PasskeyInvalid()
        return self._complete(user, sign_in, Method.PASSKEY, actor=actor, kind=kind)

    def _complete(
        self, user: User, sign_in: OpenSignIn, method: Method, *, actor: Actor, kind: SessionKind
    ) -> SignedIn:
        self._pending.end(sign_in)
        return self._completion.complete(
            user,
            actor=as_user(actor, user),
            methods=(*sign_in.amr, *AMR[method]),
            passed=[sign_in.lockout_key],
            remember_me=sign_in.remember_me,
            kind=kind,
            details={"method": "password", "step": "mfa", "factor": method},
        )

    def _record_failure(
        self, user: User, sign_in: OpenSignIn, method: Method, *, reason: str, actor: Actor
    ) -> None:
        """Count an attempt of the mfa_token, and record why the second step failed."""
        self._pending.fail(sign_in)
        self._recorder.audit.record(
            AuditAction.AUTH_LOGIN,
            actor=actor,
            target=("user", user.id),
            outcome=Outcome.FAILURE,
            details={"method": "password", "step": "mfa", "factor": method, "reason": reason},
        )

    def _issue(self, signed_in: SignedIn) -> TokenPair:
        return self._token_pairs.issue(
            signed_in.session,
            signed_in.user,
            catalogue_version=signed_in.catalogue_version,
            user=signed_in.user,
        )

    def _locked(self, mfa_token: str, user_id: UUID) -> tuple[User | None, OpenSignIn | None]:
        """Return the active user and the sign-in of an mfa_token, both locked in this order.

        A concurrent request may have used the token, or an administrator suspended the user.
        """
        user = require_transaction().get(User, user_id, with_for_update=True)
        if user is None or user.status != UserStatus.ACTIVE:
            return None, None
        return user, self._pending.lock(mfa_token)


def _ceremony(sign_in: OpenSignIn) -> Ceremony:
    return Ceremony(purpose=Purpose.SECOND_STEP, bound_to=sign_in.id)
