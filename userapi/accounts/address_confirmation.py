"""An administrator confirms the address of a user who does not receive the mail."""

from uuid import UUID

from userapi.accounts.email_confirmation import EmailConfirmation
from userapi.accounts.errors import InvalidStatusTransition
from userapi.accounts.models import UserStatus
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.infrastructure.database import transaction
from userapi.permissions import Permission


class AddressConfirmation:
    """Confirms addresses without a link."""

    def __init__(self, *, accounts: Accounts, email_confirmation: EmailConfirmation) -> None:
        self._accounts = accounts
        self._email_confirmation = email_confirmation

    def confirm(self, user_id: UUID, *, actor: Actor) -> None:
        """Mark the address as verified, and activate a pending user.

        An invited user has no password yet, so only the invitation activates the account. Raises
        UserNotFound, PermissionDenied, InsufficientRank, InvalidStatusTransition.
        """
        actor.require(Permission.USERS_UPDATE)
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            if user.status == UserStatus.PENDING and user.password_hash is None:
                raise InvalidStatusTransition("An invited user confirms the address by the link.")
            self._email_confirmation.confirm(session, user, actor=actor)
