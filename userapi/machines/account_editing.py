"""Editing: changing the fields and the roles of a service account."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from userapi.accounts.models import searchable
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.machines.accounts import ServiceAccounts
from userapi.machines.validation import parse_account_name
from userapi.machines.views import AccountView
from userapi.permissions import Permission

# The columns of the fields of the API.
_COLUMN_OF = {"name": "name", "description": "description", "metadata": "attributes"}


class ServiceAccountEditing:
    """Changes service accounts."""

    def __init__(self, *, service_accounts: ServiceAccounts) -> None:
        self._service_accounts = service_accounts

    def update(
        self,
        account_id: UUID,
        changes: Mapping[str, Any],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> AccountView:
        """Change the given fields and keep the others. `roles` also needs `roles:assign`.

        Raises ServiceAccountNotFound, SelfActionRefused, PermissionDenied, InsufficientRank, Stale,
        Invalid, ServiceAccountNameTaken, PermissionEscalation.
        """
        if "roles" in changes:
            actor.require(Permission.ROLES_ASSIGN)
        values = {_COLUMN_OF[name]: changes[name] for name in _COLUMN_OF if name in changes}
        if "name" in values:
            values["name"] = parse_account_name(values["name"])
        with transaction() as session:
            account = self._service_accounts.locked_for(
                actor, session, account_id, if_match=if_match
            )
            differing = {
                name: (getattr(account, column), values[column])
                for name, column in _COLUMN_OF.items()
                if column in values and getattr(account, column) != values[column]
            }
            if differing:
                for column, value in values.items():
                    setattr(account, column, value)
                account.search_text = searchable(account.name, account.description)
                self._service_accounts.save(
                    session,
                    account,
                    AuditAction.SERVICE_ACCOUNT_UPDATED,
                    EventType.SERVICE_ACCOUNT_UPDATED,
                    actor=actor,
                    changes=differing,
                )
            if "roles" in changes:
                before, after = self._service_accounts.replace_roles(
                    session, account_id, changes["roles"], actor=actor
                )
                if before != after:
                    self._service_accounts.save(
                        session,
                        account,
                        AuditAction.SERVICE_ACCOUNT_ROLES_CHANGED,
                        EventType.SERVICE_ACCOUNT_ROLES_CHANGED,
                        actor=actor,
                        changes={"roles": (before, after)},
                    )
            return self._service_accounts.view(session, account_id)
