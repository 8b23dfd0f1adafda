"""Session revocation: ending the sessions of one user."""

from uuid import UUID

from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.infrastructure.database import transaction
from userapi.sessions.service import EndReason, Sessions


class SessionRevocation:
    """Ends sessions of a user. Every method raises UserNotFound and InsufficientRank."""

    def __init__(self, *, accounts: Accounts, sessions: Sessions) -> None:
        self._accounts = accounts
        self._sessions = sessions

    def end_session(
        self, user_id: UUID, session_id: UUID, *, actor: Actor, reason: EndReason
    ) -> None:
        """End one session. Also raises SessionNotFound."""
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            view = self._accounts.view(session, user.id)
            self._sessions.end(session_id, user=view.facts, actor=actor, reason=reason)

    def end_sessions(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        reason: EndReason = EndReason.REVOKED,
        keep: UUID | None = None,
    ) -> int:
        """End all sessions except `keep`; return how many ended."""
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id)
            view = self._accounts.view(session, user.id)
            return self._sessions.end_all(user=view.facts, actor=actor, reason=reason, keep=keep)
