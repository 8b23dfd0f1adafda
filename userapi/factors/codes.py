"""Codes of the second step: of an authenticator app, or a recovery code.

Each account has one counter of wrong codes, apart from those of its identifiers. An attempt is
reserved before the check, as for passwords. A code is accepted by one guarded statement, so that of
many concurrent requests with the same code one succeeds, in whichever process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select, update

from userapi.accounts.locks import AccountLocks
from userapi.accounts.models import User
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.errors import Unavailable
from userapi.factors.methods import Method, MfaOutcome
from userapi.factors.models import TotpFactor
from userapi.factors.recovery_codes import RecoveryCodes, unused_codes
from userapi.factors.totp import has_form_of_code, step_of_code
from userapi.factors.totp_secrets import SealedSecret, TotpSecrets
from userapi.infrastructure.database import (
    after_commit,
    reading,
    require_transaction,
    table_of,
    transaction,
)
from userapi.infrastructure.encryption import SealedValueUnreadable
from userapi.lockout.service import Lockout, TooManyAttempts
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.recorder import Recorder

CountTry = Callable[[Method, MfaOutcome], None]

_apps = table_of(TotpFactor)


class CodeRefusal(StrEnum):
    """Why a code was not accepted. Only the audit log contains it."""

    REUSED_CODE = "reused_code"
    WRONG_CODE = "wrong_code"


@dataclass(frozen=True, slots=True)
class MatchingStep:
    """The time step at which an app shows the code.

    `resealed` is the secret of the app under the current key, if a former one encrypted it.
    """

    step: int
    resealed: SealedSecret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedCode:
    """A code that was compared with the secrets of a user, and is not accepted yet.

    One attempt of `key` is still reserved.
    """

    user_id: UUID
    key: str
    method: Method
    steps: Mapping[UUID, MatchingStep]
    recovery_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedCode:
    """A code that was accepted."""

    method: Method
    recovery_codes_left: int | None = None


class CodeCheck:
    """Checks codes. Too many failures in a row lock the codes of the account."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        lockout: Lockout,
        locks: AccountLocks,
        secrets: TotpSecrets,
        recovery_codes: RecoveryCodes,
        mails: MailQueue,
        count: CountTry,
    ) -> None:
        self._recorder = recorder
        self._lockout = lockout
        self._locks = locks
        self._secrets = secrets
        self._recovery_codes = recovery_codes
        self._mails = mails
        self._count = count

    def begin(self, user_id: UUID, code: str, *, actor: Actor) -> TriedCode:
        """Reserve an attempt, and compare a code with the secrets of a user.

        No transaction is open. The caller then locks the user and calls `finish` or `release`.
        Raises TooManyAttempts, Busy, and Unavailable if no key decrypts the secrets of the apps.
        """
        text = "".join(code.split())
        method = Method.TOTP if has_form_of_code(text) else Method.RECOVERY_CODE
        key = self._lockout.key_of_codes(user_id)
        try:
            self._lockout.reserve_attempt(key)
        except TooManyAttempts:
            self._count(method, MfaOutcome.LOCKED)
            self._recorder.audit.record_alone(
                AuditAction.AUTH_LOGIN_BLOCKED,
                actor=actor,
                target=("user", user_id),
                outcome=Outcome.DENIED,
                details={"counter": "mfa", "factor": method},
            )
            raise
        try:
            if method is Method.TOTP:
                steps = self._matching_steps(user_id, text)
                return TriedCode(
                    user_id=user_id, key=key, method=method, steps=steps, recovery_hash=None
                )
            found = self._recovery_codes.hash_of(user_id, text)
            return TriedCode(user_id=user_id, key=key, method=method, steps={}, recovery_hash=found)
        except Unavailable:
            with transaction():
                self._lockout.release_attempt(key)
            raise

    def finish(self, user: User, tried: TriedCode, *, actor: Actor) -> AcceptedCode | CodeRefusal:
        """Accept the code of a locked user once and clear the failures, or count a failure.

        The caller records in the same transaction what the code was for.
        """
        accepted = self._accept(user, tried, actor=actor)
        if isinstance(accepted, AcceptedCode):
            self._locks.clear_wrong_codes(user)
            after_commit(lambda: self._count(tried.method, MfaOutcome.SUCCESS))
            return accepted
        after_commit(lambda: self._count(tried.method, MfaOutcome.FAILURE))
        lock = self._lockout.fail(tried.key)
        if lock is not None:
            # One mail for consecutive locks, so that an attacker cannot flood the mailbox.
            mail = MailKind.CODES_LOCKED if lock.is_first else None
            self._locks.record(user, lock, actor=actor, mail=mail, details={"counter": "mfa"})
        return accepted

    def release(self, tried: TriedCode) -> None:
        """Release the attempt of a code that is not needed, in the open transaction."""
        self._lockout.release_attempt(tried.key)

    def _matching_steps(self, user_id: UUID, code: str) -> dict[UUID, MatchingStep]:
        """Return at which step each app of a user shows the code.

        Raises Unavailable if the user has apps and no key decrypts any of them. While one of them
        can be read, a wrong code is a failure: otherwise it could be guessed without limit.
        """
        query = select(_apps.c.id, _apps.c.sealed_secret).where(
            _apps.c.user_id == user_id, _apps.c.confirmed_at.is_not(None)
        )
        with reading() as connection:
            rows = connection.execute(query).all()
        found: dict[UUID, MatchingStep] = {}
        unreadable: SealedValueUnreadable | None = None
        readable = 0
        for row in rows:
            try:
                secret = self._secrets.open_sealed(
                    row.sealed_secret, user_id=user_id, factor_id=row.id
                )
            except SealedValueUnreadable as exc:
                unreadable = exc
                continue
            readable += 1
            step = step_of_code(secret, code, now=self._recorder.now())
            if step is not None:
                resealed = self._secrets.reseal(
                    row.sealed_secret, secret, user_id=user_id, factor_id=row.id
                )
                found[row.id] = MatchingStep(step, resealed)
        if unreadable is not None and readable == 0:
            raise unreadable
        return found

    def _accept(self, user: User, tried: TriedCode, *, actor: Actor) -> AcceptedCode | CodeRefusal:
        if tried.recovery_hash is not None:
            return self._accept_recovery_code(user, tried.recovery_hash, actor=actor)
        for factor_id, match in tried.steps.items():
            if self._accept_step(user.id, factor_id, match):
                return AcceptedCode(method=Method.TOTP)
        return CodeRefusal.REUSED_CODE if tried.steps else CodeRefusal.WRONG_CODE

    def _accept_step(self, user_id: UUID, factor_id: UUID, match: MatchingStep) -> bool:
        """Move an app to the step of a code; return whether the step was still unused.

        One statement: of concurrent calls with the same code, one returns True.
        """
        values = {"last_step": match.step, "last_used_at": self._recorder.now()}
        if match.resealed is not None:
            values |= match.resealed.columns
        accepted = require_transaction().execute(
            update(_apps)
            .where(
                _apps.c.id == factor_id,
                _apps.c.user_id == user_id,
                _apps.c.confirmed_at.is_not(None),
                _apps.c.last_step < match.step,
            )
            .values(values)
            .returning(_apps.c.id)
        )
        return accepted.first() is not None

    def _accept_recovery_code(
        self, user: User, code_hash: str, *, actor: Actor
    ) -> AcceptedCode | CodeRefusal:
        if not self._recovery_codes.use(user.id, code_hash, now=self._recorder.now()):
            is_known = self._recovery_codes.exists(user.id, code_hash)
            return CodeRefusal.REUSED_CODE if is_known else CodeRefusal.WRONG_CODE
        left = unused_codes(require_transaction(), user.id)
        self._recorder.audit.record(
            AuditAction.MFA_RECOVERY_CODE_USED,
            actor=actor,
            target=("user", user.id),
            details={"left": left},
        )
        self._mails.enqueue(
            MailKind.RECOVERY_CODE_USED,
            recipient=user.email,
            user_id=user.id,
            data={"left": left},
            correlation_id=actor.correlation_id,
        )
        return AcceptedCode(method=Method.RECOVERY_CODE, recovery_codes_left=left)
