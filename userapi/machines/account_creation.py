"""Creation: an administrator creates a service account."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from userapi.accounts.models import searchable
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.errors import require_all
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import new_id, transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.machines.accounts import ServiceAccounts, insert_account
from userapi.machines.models import AccountStatus
from userapi.machines.validation import parse_account_name
from userapi.machines.views import AccountView
from userapi.permissions import Permission
from userapi.recorder import Recorder
from userapi.roles.assignment import require_few_roles, require_listed
from userapi.roles.service import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServiceAccount:
    """A service account to create."""

    name: str
    description: str = ""
    roles: Collection[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ServiceAccountCreation:
    """Creates service accounts."""

    def __init__(
        self, *, recorder: Recorder, service_accounts: ServiceAccounts, roles: Roles
    ) -> None:
        self._recorder = recorder
        self._service_accounts = service_accounts
        self._roles = roles

    def create(
        self,
        new: NewServiceAccount,
        *,
        actor: Actor,
        idempotency: IdempotencyStore | None = None,
    ) -> AccountView:
        """Create an account without keys and return it.

        Raises Invalid, PermissionDenied, ServiceAccountNameTaken, PermissionEscalation.
        """
        if new.roles:
            actor.require(Permission.ROLES_ASSIGN)
        require_all(
            lambda: parse_account_name(new.name),
            lambda: require_few_roles(new.roles),
            lambda: (
                require_listed(list(new.roles), self._roles.graph().names) if new.roles else None
            ),
        )
        name, account_id, now = parse_account_name(new.name), new_id(), self._recorder.now()
        with transaction() as session:
            if idempotency:
                idempotency.claim()
            insert_account(
                {
                    "id": account_id,
                    "name": name,
                    "description": new.description,
                    "status": AccountStatus.ACTIVE,
                    "attributes": dict(new.metadata),
                    "search_text": searchable(name, new.description),
                    "version": 1,
                    "access_version": 1,
                    "token_version": 1,
                    "created_at": now,
                    "updated_at": now,
                    "created_by": None if actor.type is ActorType.SYSTEM else actor.id,
                }
            )
            self._service_accounts.replace_roles(session, account_id, new.roles, actor=actor)
            view = self._service_accounts.view(session, account_id)
            self._service_accounts.record(
                view,
                AuditAction.SERVICE_ACCOUNT_CREATED,
                EventType.SERVICE_ACCOUNT_CREATED,
                actor=actor,
                details={"name": name, "roles": view.roles},
            )
            if idempotency:
                idempotency.store(view, user_id=view.id)
        return view
