"""E-mail verification: a link by mail proves an address, the current or a new one."""

from userapi.accounts.email_confirmation import EmailConfirmation
from userapi.accounts.models import UserStatus
from userapi.actor import Actor
from userapi.authentication.owners import as_user, find_by_email, lock_link_owner
from userapi.infrastructure.database import transaction
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens

PROVING_AN_ADDRESS = (TokenPurpose.EMAIL_CHANGE, TokenPurpose.EMAIL_VERIFICATION)


class EmailVerification:
    """Verifies e-mail addresses."""

    def __init__(
        self, *, email_confirmation: EmailConfirmation, one_time_tokens: OneTimeTokens
    ) -> None:
        self._email_confirmation = email_confirmation
        self._one_time_tokens = one_time_tokens

    def confirm(self, token: str, *, actor: Actor) -> None:
        """Mark the address of the link's owner as verified; a new address replaces the old one.

        A pending user becomes active. Raises InvalidToken, EmailTaken.
        """
        user_id = self._one_time_tokens.owner_of(token, *PROVING_AN_ADDRESS)
        with transaction() as session:
            user = lock_link_owner(session, user_id)
            used = self._one_time_tokens.redeem(token, *PROVING_AN_ADDRESS)
            actor = as_user(actor, user)
            if used.purpose == TokenPurpose.EMAIL_CHANGE:
                self._email_confirmation.replace(session, user, used.email, actor=actor)
            self._email_confirmation.confirm(session, user, actor=actor)

    def resend(self, email: str, *, actor: Actor) -> None:
        """Send the link again if the owner of this address registered and has not verified it.

        Equal work for every address hides which accounts exist.
        """
        owner = find_by_email(email)
        is_waiting = owner.status is UserStatus.PENDING and not owner.is_invited
        with transaction():
            self._one_time_tokens.send(
                TokenPurpose.EMAIL_VERIFICATION,
                user_id=owner.user_id if is_waiting else None,
                email=email,
                actor=actor,
            )
