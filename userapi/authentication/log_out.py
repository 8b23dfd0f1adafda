"""Log-out: users end their session, or all of their sessions."""

from dataclasses import replace

from userapi.accounts.models import User
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.owners import as_user, lock_session, view_of
from userapi.authentication.token_status import SessionReference
from userapi.infrastructure.database import transaction
from userapi.recorder import Recorder
from userapi.sessions.service import EndReason, Sessions


class LogOut:
    """Ends sessions for their users."""

    def __init__(self, *, recorder: Recorder, sessions: Sessions) -> None:
        self._recorder = recorder
        self._sessions = sessions

    def end(self, reference: SessionReference, *, actor: Actor, all_sessions: bool = False) -> None:
        """End the session of a token or cookie, or every session of its user.

        Do nothing if the session has ended or the token is of an earlier version.
        """
        user_id, session_id = reference.user_id, reference.session_id
        with transaction() as session:
            user = session.get(User, user_id, with_for_update=True)
            own = lock_session(session, session_id)
            if user is None or own is None or own.user_id != user_id:
                return
            if not self._sessions.is_live(own) or own.version != reference.session_version:
                return
            actor = replace(as_user(actor, user), session_id=session_id)
            facts = view_of(session, user_id, self._recorder.now()).facts
            self._recorder.audit.record(
                AuditAction.AUTH_LOGOUT,
                actor=actor,
                target=("user", user_id),
                details={"all_sessions": all_sessions},
            )
            if all_sessions:
                self._sessions.end_all(user=facts, actor=actor, reason=EndReason.LOGOUT)
            else:
                self._sessions.end(session_id, user=facts, actor=actor, reason=EndReason.LOGOUT)
