"""Deletion of an account by its user."""

from uuid import UUID

from userapi.accounts.deletion import AccountDeletion
from userapi.actor import Actor
from userapi.authentication.owners import lock_active_user
from userapi.authentication.password_check import PasswordCheck
from userapi.infrastructure.database import transaction
from userapi.roles.assignment import role_names_of


class OwnAccountDeletion:
    """Deletes the account of the signed-in user."""

    def __init__(self, *, deletion: AccountDeletion, password_check: PasswordCheck) -> None:
        self._deletion = deletion
        self._password_check = password_check

    def delete(self, user_id: UUID, *, current_password: str, actor: Actor) -> None:
        """Delete the account permanently.

        Raises Busy, InvalidCredentials, TooManyAttempts, LastSuperadmin.
        """
        self._password_check.require_current(user_id, current_password, actor=actor)
        with transaction() as session:
            user = lock_active_user(session, user_id)
            names = role_names_of(session, user_id)
            self._deletion.remove(session, user, names, actor=actor)
