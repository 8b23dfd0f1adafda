"""Log-in with a password: starts a session and returns its tokens."""

from userapi.accounts.activation import lift_suspension
from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.owners import as_user
from userapi.authentication.password_check import BY_PASSWORD, InvalidCredentials, PasswordCheck
from userapi.authentication.second_step_demand import SecondStepDemand
from userapi.authentication.sign_in_completion import SignInCompletion
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import Forbidden, ServiceError
from userapi.infrastructure.database import transaction
from userapi.lockout.service import Lockout
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import PWD
from userapi.sessions.models import SessionKind

# Two concurrent log-ins that both rehash the password change the hash once under each other.
MAX_ATTEMPTS = 3


class AccountSuspended(Forbidden):
    """The sign-in is correct, but the account is suspended."""

    code = "account_suspended"
    title = "This account is suspended."


class AccountPending(Forbidden):
    """The sign-in is correct, but the account is not active yet."""

    code = "account_pending"
    title = "This account is not yet active."


class LogIn:
    """Logs users in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        lockout: Lockout,
        accounts: Accounts,
        completion: SignInCompletion,
        second_step: SecondStepDemand,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._lockout = lockout
        self._accounts = accounts
        self._completion = completion
        self._second_step = second_step
        self._token_pairs = token_pairs

    def with_password(
        self,
        identifier: str,
        password: str,
        *,
        actor: Actor,
        remember_me: bool = False,
        kind: SessionKind = SessionKind.API,
    ) -> TokenPair:
        """Start a session for the user with this name or address and password.

        Raises Busy, TooManyAttempts, InvalidCredentials, and after the correct password
        AccountSuspended, AccountPending, or MfaRequired for an account with a second factor. An
        unknown identifier takes the same time and raises
        the same error as a wrong password.
        """
        # Before any query: most log-ins of a sudden burst end here.
        self._password_check.require_capacity()
        identifier = canonical_identifier(identifier)
        for _ in range(MAX_ATTEMPTS):
            pair = self._try_password(identifier, password, actor, remember_me, kind)
            if pair is not None:
                return pair
        raise InvalidCredentials()

    def _try_password(
        self, identifier: str, password: str, actor: Actor, remember_me: bool, kind: SessionKind
    ) -> TokenPair | None:
        """Log in as `with_password` does; None if the hash changed during the check."""
        verified = self._password_check.verify(identifier, password, actor=actor)
        new_hash = self._password_check.rehash(password, verified)
        with transaction() as session:
            user = session.get(User, verified.user_id, with_for_update=True)
            if user is None or user.password_hash != verified.password_hash:
                # Deleted, given another password, or rehashed by a concurrent log-in: the hash
                # that was checked is no longer the current one.
                self._lockout.release_attempt(verified.lockout_key)
                return None
            lift_suspension(self._accounts, session, user, actor=actor, now=self._recorder.now())
            refusal = status_refusal(user)
            actor = as_user(actor, user)
            if refusal is not None:
                self._record_refusal(user, refusal, key=verified.lockout_key, actor=actor)
            else:
                if new_hash is not None:
                    user.password_hash = new_hash
                if user.mfa_enabled:
                    # The failures stay until the sign-in is complete: otherwise a correct password
                    # between two guesses of a code would clear them.
                    self._lockout.release_attempt(verified.lockout_key)
                    refusal = self._second_step.open(
                        session,
                        user,
                        lockout_key=verified.lockout_key,
                        amr=PWD,
                        remember_me=remember_me,
                        actor=actor,
                    )
                else:
                    signed_in = self._completion.complete(
                        user,
                        actor=actor,
                        methods=PWD,
                        passed=[verified.lockout_key],
                        remember_me=remember_me,
                        kind=kind,
                        details=BY_PASSWORD,
                    )
        if refusal is not None:
            raise refusal
        return self._token_pairs.issue(
            signed_in.session,
            signed_in.user,
            catalogue_version=signed_in.catalogue_version,
            user=signed_in.user,
        )

    def _record_refusal(self, user: User, refusal: ServiceError, *, key: str, actor: Actor) -> None:
        """Record that the correct password does not log in; this does not count as a failure."""
        self._lockout.release_attempt(key)
        self._recorder.audit.record(
            AuditAction.AUTH_LOGIN,
            actor=actor,
            target=("user", user.id),
            outcome=Outcome.DENIED,
            details={**BY_PASSWORD, "reason": refusal.code},
        )


def status_refusal(user: User) -> ServiceError | None:
    """Return why a user who has proved their identity cannot sign in, or None."""
    if user.status == UserStatus.SUSPENDED:
        return AccountSuspended()
    if user.status == UserStatus.PENDING:
        return AccountPending()
    return None
