"""New passwords: the step that every use case shares that sets one."""

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.authentication.owners import view_of
from userapi.errors import Invalid, invalid_field
from userapi.events.catalogue import EventType, UserEvent
from userapi.infrastructure.database import require_transaction
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.recorder import Recorder


class NewPasswords:
    """Stores the hashes of new passwords."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._one_time_tokens = one_time_tokens
        self._mails = mails

    def store(self, user: User, password_hash: str, *, actor: Actor) -> UserView:
        """Store a new password hash of a locked user, in the open transaction.

        Voids open one-time tokens, invalidates cached sessions and notifies the user by mail.
        """
        session = require_transaction()
        now = self._recorder.now()
        user.password_hash = password_hash
        user.password_changed_at = now
        user.must_change_password = False
        user.version += 1
        user.updated_at = now
        self._accounts.invalidate_cached_sessions(user)
        self._one_time_tokens.void_all(user.id)
        session.flush()
        view = view_of(session, user.id, now)
        self._recorder.outbox.append(
            UserEvent(type=EventType.USER_PASSWORD_CHANGED, user=view.facts), actor=actor
        )
        self._mails.enqueue(
            MailKind.PASSWORD_CHANGED,
            recipient=user.email,
            user_id=user.id,
            correlation_id=actor.correlation_id,
        )
        return view


def password_unchanged() -> Invalid:
    """Return the error for a new password that equals the current one."""
    return invalid_field(
        "new_password", "Must differ from the current password.", "password_unchanged"
    )
