"""Renewal: a session continues with a new pair of tokens, and all earlier ones are revoked.

A new version of the session revokes them. Sending a revoked refresh token is not a reuse: it does
not end the session. The grace period of a refresh never exchanges a token of a former version for
one of the new version.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from userapi.authentication.owners import lock_session
from userapi.authentication.refusals import TokenRevoked
from userapi.authentication.token_status import SessionReference
from userapi.infrastructure.database import after_commit
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import authenticated_by, union
from userapi.sessions.models import UserSession
from userapi.sessions.service import Sessions
from userapi.sessions.status import LiveSessions


class SessionRenewal:
    """Renews sessions, inside the transaction of a use case. `TokenPairs` then issues the pair."""

    def __init__(self, *, recorder: Recorder, sessions: Sessions, live: LiveSessions) -> None:
        self._recorder = recorder
        self._sessions = sessions
        self._live = live

    def lock(self, session: Session, own: SessionReference) -> UserSession:
        """Return the live session that a token or cookie refers to, locked after its user.

        Raises TokenRevoked if it has ended or was renewed since: of several concurrent requests
        with one access token, exactly one renews the session.
        """
        locked = lock_session(session, own.session_id)
        if locked is None or locked.user_id != own.user_id or not self._sessions.is_live(locked):
            raise TokenRevoked()
        if locked.version != own.session_version:
            raise TokenRevoked()
        return locked

    def renew(self, own: UserSession, *, proved: Sequence[str] = ()) -> None:
        """Store a new version of a locked session, and the methods that authenticated its user.

        Without methods, the authentication of the session does not change. Its expiry never
        changes.
        """
        now = self._recorder.now()
        own.generation += 1
        own.version += 1
        own.rotated_at = now
        own.last_used_at = now
        if proved:
            proof = authenticated_by(union(own.authentication.amr, proved), at=now)
            own.acr, own.amr = proof.acr, " ".join(proof.amr)
            own.authenticated_at = now
        session_id, user_id, version = own.id, own.user_id, own.version
        after_commit(
            lambda: self._live.session_changed(session_id, user_id=user_id, version=version)
        )
