"""Password reset by an administrator, who learns neither the link nor the password."""

from uuid import UUID

from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.infrastructure.database import transaction
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.recorder import Recorder
from userapi.sessions.service import EndReason, Sessions


class ForcedReset:
    """Makes users set a new password."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        one_time_tokens: OneTimeTokens,
        sessions: Sessions,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._one_time_tokens = one_time_tokens
        self._sessions = sessions

    def start(self, user_id: UUID, *, actor: Actor) -> None:
        """Send a user a link that sets a new password, and end all of their sessions.

        Raises UserNotFound, InsufficientRank.
        """
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            facts = self._accounts.view(session, user_id).facts
            purpose = TokenPurpose.PASSWORD_RESET if user.password_hash else TokenPurpose.INVITATION
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_RESET_REQUESTED, actor=actor, target=("user", user_id)
            )
            self._one_time_tokens.send(purpose, user_id=user_id, email=user.email, actor=actor)
            self._sessions.end_all(user=facts, actor=actor, reason=EndReason.PASSWORD_RESET)
