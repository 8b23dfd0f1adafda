"""Password recovery: a link by mail sets a new password, or the first one of an invited user."""

from uuid import UUID

from sqlalchemy import select

from userapi.accounts.email_confirmation import EmailConfirmation
from userapi.accounts.errors import UserNotFound
from userapi.accounts.models import UserStatus
from userapi.accounts.service import Accounts
from userapi.accounts.views import users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.new_passwords import NewPasswords, password_unchanged
from userapi.authentication.owners import as_user, find_by_email, lock_link_owner
from userapi.authentication.standing_credentials import StandingCredentials
from userapi.infrastructure.database import reading, transaction
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import InvalidToken, OneTimeTokens
from userapi.passwords.peppers import PepperMissing
from userapi.passwords.tools import PasswordTools
from userapi.recorder import Recorder

SETTING_A_PASSWORD = (TokenPurpose.INVITATION, TokenPurpose.PASSWORD_RESET)


class Recovery:
    """Sends links that set a password, and sets the password of the link's owner."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        email_confirmation: EmailConfirmation,
        passwords: PasswordTools,
        new_passwords: NewPasswords,
        one_time_tokens: OneTimeTokens,
        credentials: StandingCredentials,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._email_confirmation = email_confirmation
        self._passwords = passwords
        self._new_passwords = new_passwords
        self._one_time_tokens = one_time_tokens
        self._credentials = credentials

    def request_reset(self, email: str, *, actor: Actor) -> None:
        """Send a link that sets a new password to the owner of this address.

        Equal work for every address hides which accounts exist: for an unknown one, the worker
        drops the mail later. An invited user receives another invitation.
        """
        owner = find_by_email(email)
        purpose = TokenPurpose.INVITATION if owner.is_invited else TokenPurpose.PASSWORD_RESET
        may_reset = owner.status is UserStatus.ACTIVE or owner.is_invited
        with transaction():
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_RESET_REQUESTED,
                actor=actor,
                target=("user", owner.user_id) if owner.user_id else None,
            )
            self._one_time_tokens.send(
                purpose, user_id=owner.user_id if may_reset else None, email=email, actor=actor
            )

    def confirm_reset(
        self, token: str, new_password: str, *, actor: Actor, revoke_api_keys: bool = True
    ) -> None:
        """Set the password of the link's owner, unlock them and end all of their sessions.

        Their API keys are revoked unless `revoke_api_keys` is false. An invited user becomes
        active. A rejected password leaves the token valid. Raises Busy, InvalidToken, Invalid.
        """
        user_id = self._one_time_tokens.owner_of(token, *SETTING_A_PASSWORD)
        self._require_acceptable(new_password, user_id)
        password_hash = self._passwords.hasher.hash(new_password)
        with transaction() as session:
            user = lock_link_owner(session, user_id)
            used = self._one_time_tokens.redeem(token, *SETTING_A_PASSWORD)
            actor = as_user(actor, user)
            if used.purpose == TokenPurpose.INVITATION:
                # The link was sent to the address, so its holder has access to it.
                self._email_confirmation.confirm(session, user, actor=actor)
            view = self._new_passwords.store(user, password_hash, actor=actor)
            self._accounts.clear_failed_logins(user)
            self._credentials.end(session, user, view, actor=actor, keys=revoke_api_keys)
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_RESET, actor=actor, target=("user", user_id)
            )

    def _require_acceptable(self, new_password: str, user_id: UUID) -> None:
        """Check a new password against the policy and the current password. Raises Invalid."""
        try:
            known = self._accounts.get(user_id)
        except UserNotFound as exc:
            raise InvalidToken() from exc
        self._passwords.policy.require(
            new_password, username=known.username, email=known.email, field="new_password"
        )
        with reading() as connection:
            stored = connection.execute(
                select(users.c.password_hash).where(users.c.id == user_id)
            ).scalar_one_or_none()
        if stored is not None and self._is_current(new_password, stored):
            raise password_unchanged()

    def _is_current(self, new_password: str, stored: str) -> bool:
        """Return whether a password is the current one; False if its pepper is missing."""
        try:
            return self._passwords.hasher.verify(new_password, stored).matches
        except PepperMissing:
            return False
