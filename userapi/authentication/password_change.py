"""Password change: the signed-in user replaces the current password."""

import unicodedata

from userapi.accounts.models import User
from userapi.accounts.views import find_user
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.new_passwords import NewPasswords, password_unchanged
from userapi.authentication.owners import lock_session
from userapi.authentication.password_check import PasswordCheck
from userapi.authentication.refusals import TokenRevoked
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.errors import require_all
from userapi.infrastructure.database import after_commit, reading, transaction
from userapi.passwords.tools import PasswordTools
from userapi.recorder import Recorder
from userapi.sessions.models import UserSession
from userapi.sessions.service import EndReason, Sessions
from userapi.sessions.status import LiveSessions


class PasswordChange:
    """Changes the password of the signed-in user."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        passwords: PasswordTools,
        new_passwords: NewPasswords,
        sessions: Sessions,
        live: LiveSessions,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._passwords = passwords
        self._new_passwords = new_passwords
        self._sessions = sessions
        self._live = live
        self._token_pairs = token_pairs

    def change(self, *, current: str, new: str, actor: Actor) -> TokenPair:
        """Set a new password and return a new pair for the same session; all others end.

        Raises Busy, InvalidCredentials, TooManyAttempts, Invalid.
        """
        if actor.id is None or actor.session_id is None:
            raise TokenRevoked()
        self._password_check.require_current(actor.id, current, actor=actor)
        with reading() as connection:
            known = find_user(connection, actor.id, self._recorder.now())
        if known is None:
            raise TokenRevoked()
        require_all(
            lambda: self._passwords.policy.require(
                new, username=known.username, email=known.email, field="new_password"
            ),
            lambda: _require_different(new, current),
        )
        password_hash = self._passwords.hasher.hash(new)
        with transaction() as session:
            user = session.get(User, actor.id, with_for_update=True)
            own = lock_session(session, actor.session_id)
            if user is None or own is None or not self._sessions.is_live(own):
                raise TokenRevoked()
            view = self._new_passwords.store(user, password_hash, actor=actor)
            self._sessions.end_all(
                user=view.facts, actor=actor, reason=EndReason.PASSWORD_CHANGED, keep=own.id
            )
            self._revoke_tokens(own)
            session.flush()
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_CHANGED, actor=actor, target=("user", user.id)
            )
        return self._token_pairs.issue(own, view)

    def _revoke_tokens(self, own: UserSession) -> None:
        """Give a locked session a new version, which revokes every token issued for it so far."""
        now = self._recorder.now()
        own.generation += 1
        own.version += 1
        own.rotated_at = now
        own.last_used_at = now
        session_id, version = own.id, own.version
        after_commit(lambda: self._live.session_changed(session_id, version=version, live=True))


def _require_different(new: str, current: str) -> None:
    if unicodedata.normalize("NFKC", new) == unicodedata.normalize("NFKC", current):
        raise password_unchanged()
