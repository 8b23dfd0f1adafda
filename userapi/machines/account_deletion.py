"""Deletion: a service account is removed with its keys and tokens. Audit rows stay."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import delete

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.infrastructure.idempotency_keys import drop_answers_about
from userapi.machines.accounts import ServiceAccounts
from userapi.machines.views import accounts


class ServiceAccountDeletion:
    """Deletes service accounts."""

    def __init__(self, *, service_accounts: ServiceAccounts) -> None:
        self._service_accounts = service_accounts

    def delete(
        self, account_id: UUID, *, actor: Actor, if_match: Collection[str] | None = None
    ) -> None:
        """Delete an account. Its name can be used again.

        Raises ServiceAccountNotFound, SelfActionRefused, Stale, InsufficientRank.
        """
        with transaction() as session:
            account = self._service_accounts.locked_for(
                actor, session, account_id, if_match=if_match
            )
            view = self._service_accounts.view(session, account_id)
            self._service_accounts.record(
                view,
                AuditAction.SERVICE_ACCOUNT_DELETED,
                EventType.SERVICE_ACCOUNT_DELETED,
                actor=actor,
            )
            self._service_accounts.invalidate_copies(account)
            session.flush()
            drop_answers_about(account_id)
            session.execute(delete(accounts).where(accounts.c.id == account_id))
