"""Suspension: which service accounts can be used.

The keys of a suspended account work again when it is activated. Its client tokens do not.
"""

from uuid import UUID

from userapi.accounts.errors import InvalidStatusTransition
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.machines.accounts import ServiceAccounts
from userapi.machines.models import AccountStatus
from userapi.machines.views import AccountView


class ServiceAccountSuspension:
    """Suspends and activates service accounts.

    Both raise ServiceAccountNotFound, SelfActionRefused, InsufficientRank, InvalidStatusTransition.
    """

    def __init__(self, *, service_accounts: ServiceAccounts) -> None:
        self._service_accounts = service_accounts

    def suspend(self, account_id: UUID, *, actor: Actor, reason: str | None = None) -> AccountView:
        """Reject the keys of an account until it is activated, and its tokens permanently."""
        return self._change(account_id, AccountStatus.SUSPENDED, actor=actor, reason=reason)

    def activate(self, account_id: UUID, *, actor: Actor, reason: str | None = None) -> AccountView:
        """Accept the keys of a suspended account again."""
        return self._change(account_id, AccountStatus.ACTIVE, actor=actor, reason=reason)

    def _change(
        self, account_id: UUID, status: AccountStatus, *, actor: Actor, reason: str | None
    ) -> AccountView:
        with transaction() as session:
            account = self._service_accounts.locked_for(actor, session, account_id)
            before = account.status
            if before == status:
                raise InvalidStatusTransition(f"The service account is {status} already.")
            account.status = status
            suspended = status is AccountStatus.SUSPENDED
            account.status_reason = reason if suspended else None
            if suspended:
                account.token_version += 1
            return self._service_accounts.save(
                session,
                account,
                AuditAction.SERVICE_ACCOUNT_SUSPENDED
                if suspended
                else AuditAction.SERVICE_ACCOUNT_ACTIVATED,
                EventType.SERVICE_ACCOUNT_SUSPENDED
                if suspended
                else EventType.SERVICE_ACCOUNT_ACTIVATED,
                actor=actor,
                changes={"status": (before, str(status))},
                details={"reason": reason},
            )
