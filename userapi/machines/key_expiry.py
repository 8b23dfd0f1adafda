"""Notices that keys expire: an event, and a mail to the owner of a personal key, a week before."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.actor import system_actor
from userapi.clock import Clock, rfc3339
from userapi.events.catalogue import EventType
from userapi.events.outbox import Outbox
from userapi.infrastructure.database import reading, transaction
from userapi.machines.active_keys import keys
from userapi.machines.events import ApiKeyEvent
from userapi.machines.key_owners import KeyOwners, LockedOwner
from userapi.machines.models import ApiKey, ServiceAccount
from userapi.machines.views import key_view
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue


class KeyExpiry:
    """Sends the notices. Each key gets one, whatever the number of workers."""

    def __init__(
        self, *, clock: Clock, outbox: Outbox, owners: KeyOwners, mails: MailQueue
    ) -> None:
        self._clock = clock
        self._outbox = outbox
        self._owners = owners
        self._mails = mails

    def notify_due(self, limit: int) -> int:
        """Send the notices of at most `limit` keys that are due; return how many.

        The worker calls this repeatedly. Each key has a separate transaction.
        """
        due = (
            select(keys.c.id)
            .where(keys.c.notify_at.is_not(None), keys.c.notify_at <= self._clock.now())
            .order_by(keys.c.notify_at)
            .limit(limit)
        )
        with reading() as connection:
            key_ids = list(connection.scalars(due))
        return sum(map(self._notify, key_ids))

    def _notify(self, key_id: UUID) -> int:
        with transaction() as session:
            owner = self._lock_owner(session, key_id)
            key = session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)
            # Revoked, rotated or handled by another worker since the query.
            if owner is None or key is None or key.notify_at is None:
                return 0
            key.notify_at = None
            session.flush()
            view = key_view(key, self._clock.now())
            actor = system_actor("worker")
            self._outbox.append(
                ApiKeyEvent(type=EventType.API_KEY_EXPIRING, key=view, owner=owner.facts),
                actor=actor,
            )
            if isinstance(owner.row, User) and view.expires_at is not None:
                self._mails.enqueue(
                    MailKind.API_KEY_EXPIRING,
                    recipient=owner.row.email,
                    user_id=owner.row.id,
                    data={
                        "name": view.name,
                        "hint": view.hint,
                        "expires_at": rfc3339(view.expires_at),
                    },
                )
        return 1

    def _lock_owner(self, session: Session, key_id: UUID) -> LockedOwner | None:
        """Lock the owner before the key, as every other change of keys does."""
        row = session.execute(
            select(keys.c.user_id, keys.c.service_account_id).where(keys.c.id == key_id)
        ).one_or_none()
        if row is None:
            return None
        if row.user_id is not None:
            user = session.get(User, row.user_id, with_for_update=True)
            return None if user is None else self._owners.of_user(session, user)
        account = session.get(ServiceAccount, row.service_account_id, with_for_update=True)
        return None if account is None else self._owners.of_account(session, account)
