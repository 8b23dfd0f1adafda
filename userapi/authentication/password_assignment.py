"""Password assignment: an operator sets the password of a user."""

from uuid import UUID

from userapi.accounts.errors import UserNotFound
from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.new_passwords import NewPasswords
from userapi.infrastructure.database import transaction
from userapi.passwords.tools import PasswordTools
from userapi.recorder import Recorder
from userapi.sessions.service import EndReason, Sessions


class PasswordAssignment:
    """Sets the password of a user without the current one, for operators."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        passwords: PasswordTools,
        new_passwords: NewPasswords,
        accounts: Accounts,
        sessions: Sessions,
    ) -> None:
        self._recorder = recorder
        self._passwords = passwords
        self._new_passwords = new_passwords
        self._accounts = accounts
        self._sessions = sessions

    def assign(self, user_id: UUID, new: str, *, actor: Actor) -> None:
        """Set a user's password, unlock the user and end all of their sessions.

        Raises Busy, UserNotFound, Invalid.
        """
        known = self._accounts.get(user_id)
        self._passwords.policy.require(new, username=known.username, email=known.email)
        password_hash = self._passwords.hasher.hash(new)
        with transaction() as session:
            user = session.get(User, user_id, with_for_update=True)
            if user is None:
                raise UserNotFound()
            view = self._new_passwords.store(user, password_hash, actor=actor)
            self._accounts.clear_failed_logins(user)
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_CHANGED, actor=actor, target=("user", user_id)
            )
