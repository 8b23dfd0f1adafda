"""Locks of accounts: how users, administrators and other services are notified."""

from collections.abc import Callable, Mapping
from typing import Any

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.clock import rfc3339
from userapi.events.catalogue import EventType, UserEvent
from userapi.infrastructure.database import after_commit, require_transaction
from userapi.lockout.service import Lock
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.recorder import Recorder


class AccountLocks:
    """Records locks, in the transaction of the failure that causes them."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        mails: MailQueue,
        count_lock: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._mails = mails
        self._count_lock = count_lock

    def record(
        self,
        user: User,
        lock: Lock,
        *,
        actor: Actor,
        mail: MailKind | None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a lock in the row of a locked user, audit and publish it, and send this mail."""
        after_commit(self._count_lock)
        # User name, address and codes are locked separately; the row shows the latest end.
        user.locked_until = max(lock.until, user.locked_until or lock.until)
        self._accounts.invalidate_cached_sessions(user)
        session = require_transaction()
        session.flush()
        facts = self._accounts.view(session, user.id).facts
        until = rfc3339(lock.until)
        self._recorder.audit.record(
            AuditAction.USER_LOCKED,
            actor=actor,
            target=("user", user.id),
            details={"until": until, **(details or {})},
        )
        self._recorder.outbox.append(UserEvent(type=EventType.USER_LOCKED, user=facts), actor=actor)
        if mail is not None:
            self._mails.enqueue(
                mail,
                recipient=user.email,
                user_id=user.id,
                data={"until": until},
                correlation_id=actor.correlation_id,
            )

    def clear_wrong_codes(self, user: User) -> None:
        """Clear the wrong codes of a locked user after a correct one."""
        self._accounts.clear_wrong_codes(user)
