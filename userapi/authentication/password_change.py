"""Password change: the signed-in user replaces the current password."""

import unicodedata

from userapi.accounts.models import User
from userapi.accounts.views import find_user
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.new_passwords import NewPasswords, password_unchanged
from userapi.authentication.password_check import PasswordCheck
from userapi.authentication.refusals import TokenRevoked
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.authentication.token_status import SessionReference
from userapi.errors import require_all
from userapi.infrastructure.database import reading, transaction
from userapi.passwords.tools import PasswordTools
from userapi.recorder import Recorder
from userapi.sessions.pending_sign_ins import end_sign_ins_of
from userapi.sessions.service import EndReason, Sessions


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
        renewal: SessionRenewal,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._passwords = passwords
        self._new_passwords = new_passwords
        self._sessions = sessions
        self._renewal = renewal
        self._token_pairs = token_pairs

    def change(self, own: SessionReference, *, current: str, new: str, actor: Actor) -> TokenPair:
        """Set a new password and return a new pair for the same session; all others end.

        Raises Busy, InvalidCredentials, TooManyAttempts, Invalid, and TokenRevoked if the session
        has ended or was renewed.
        """
        self._password_check.require_current(own.user_id, current, actor=actor)
        with reading() as connection:
            known = find_user(connection, own.user_id, self._recorder.now())
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
            user = session.get(User, own.user_id, with_for_update=True)
            if user is None:
                raise TokenRevoked()
            locked = self._renewal.lock(session, own)
            view = self._new_passwords.store(user, password_hash, actor=actor)
            self._sessions.end_all(
                user=view.facts, actor=actor, reason=EndReason.PASSWORD_CHANGED, keep=locked.id
            )
            end_sign_ins_of([user.id])
            self._renewal.renew(locked)
            session.flush()
            self._recorder.audit.record(
                AuditAction.AUTH_PASSWORD_CHANGED, actor=actor, target=("user", user.id)
            )
        return self._token_pairs.issue(locked, view)


def _require_different(new: str, current: str) -> None:
    if unicodedata.normalize("NFKC", new) == unicodedata.normalize("NFKC", current):
        raise password_unchanged()
