"""Reading service accounts, and the steps that every change of one consists of.

The use cases are in separate modules: `account_creation`, `account_editing`,
`account_suspension`, `account_deletion`.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from userapi.accounts.errors import SelfActionRefused
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.audit.masking import Changes
from userapi.errors import Stale
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import (
    after_commit,
    reading,
    require_transaction,
    violated_constraint,
)
from userapi.machines.errors import ServiceAccountNameTaken, ServiceAccountNotFound
from userapi.machines.events import ServiceAccountEvent
from userapi.machines.models import ServiceAccount
from userapi.machines.status import LiveKeys
from userapi.machines.views import AccountView, account_roles, accounts, find_account
from userapi.recorder import Recorder
from userapi.roles.assignment import lock_roles, require_few_roles, require_listed
from userapi.roles.service import Roles


class ServiceAccounts:
    """Reads service accounts. The other methods are steps of use cases, in their transaction."""

    def __init__(self, *, recorder: Recorder, roles: Roles, live: LiveKeys) -> None:
        self._recorder = recorder
        self._roles = roles
        self._live = live

    def get(self, account_id: UUID) -> AccountView:
        """Return an account. Raises ServiceAccountNotFound."""
        with reading() as connection:
            found = find_account(connection, account_id, self._recorder.now())
        if found is None:
            raise ServiceAccountNotFound()
        return found

    def get_by_name(self, name: str) -> AccountView:
        """Return the account with this name. Raises ServiceAccountNotFound."""
        with reading() as connection:
            account_id = connection.scalar(select(accounts.c.id).where(accounts.c.name == name))
        if account_id is None:
            raise ServiceAccountNotFound()
        return self.get(account_id)

    # Steps of use cases

    def view(self, session: Session, account_id: UUID) -> AccountView:
        """Return an account as the open transaction reads it. Raises ServiceAccountNotFound."""
        view = find_account(session, account_id, self._recorder.now())
        if view is None:
            raise ServiceAccountNotFound()
        return view

    def locked_for(
        self,
        actor: Actor,
        session: Session,
        account_id: UUID,
        *,
        if_match: Collection[str] | None = None,
    ) -> ServiceAccount:
        """Lock an account that the actor may change.

        Raises ServiceAccountNotFound, SelfActionRefused if it is the actor itself, Stale for a
        version that is not in `if_match`, InsufficientRank.
        """
        account = session.get(ServiceAccount, account_id, with_for_update=True)
        if account is None:
            raise ServiceAccountNotFound()
        if actor.type is ActorType.SERVICE and actor.id == account_id:
            raise SelfActionRefused("A service account cannot change itself or its API keys.")
        if if_match is not None and str(account.version) not in if_match:
            raise Stale()
        self._roles.require_outranks(actor, account_id, role_names_of_account(session, account_id))
        return account

    def replace_roles(
        self, session: Session, account_id: UUID, role_names: Collection[str], *, actor: Actor
    ) -> tuple[list[str], list[str]]:
        """Replace the roles of an account by these; return the old and the new ones.

        Raises Invalid for an unknown role and for too many, PermissionEscalation.
        """
        before = role_names_of_account(session, account_id)
        wanted = sorted(set(role_names))
        require_listed(wanted, lock_roles(wanted))
        if not set(wanted) < set(before):
            require_few_roles(wanted)
        self._roles.require_may_grant(actor, [name for name in wanted if name not in before])
        gone = [name for name in before if name not in wanted]
        added = [name for name in wanted if name not in before]
        if gone:
            session.execute(
                delete(account_roles).where(
                    account_roles.c.service_account_id == account_id,
                    account_roles.c.role_name.in_(gone),
                )
            )
        if added:
            session.execute(
                insert(account_roles),
                [{"service_account_id": account_id, "role_name": name} for name in added],
            )
        return before, wanted

    def save(
        self,
        session: Session,
        account: ServiceAccount,
        action: AuditAction,
        event: EventType,
        *,
        actor: Actor,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> AccountView:
        """Write a changed, locked account with a new version, its audit row and its event.

        Returns the account after the change. Raises ServiceAccountNameTaken.
        """
        account.version += 1
        account.updated_at = self._recorder.now()
        self.invalidate_copies(account)
        with translated_conflicts():
            session.flush()
        view = self.view(session, account.id)
        self.record(view, action, event, actor=actor, changes=changes, details=details)
        return view

    def record(
        self,
        view: AccountView,
        action: AuditAction,
        event: EventType,
        *,
        actor: Actor,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the audit row and the event of a change. Empty details are left out.

        The row contains the name, by which it can be read after the account was deleted.
        """
        given = {name: value for name, value in (details or {}).items() if value}
        self._recorder.audit.record(
            action,
            actor=actor,
            target=("service_account", view.id),
            changes=changes,
            details={"name": view.name, **given},
        )
        self._recorder.outbox.append(
            ServiceAccountEvent(
                type=event,
                account=view.facts,
                changed=sorted(changes or ()) if event is EventType.SERVICE_ACCOUNT_UPDATED else (),
                reason=given.get("reason"),
            ),
            actor=actor,
        )

    def invalidate_copies(self, account: ServiceAccount) -> None:
        """Make the next request of every key and token of a locked account read it again."""
        account.access_version += 1
        account_id, version = account.id, account.access_version
        after_commit(lambda: self._live.account_changed(account_id, access_version=version))


def role_names_of_account(session: Session, account_id: UUID) -> list[str]:
    """Return the names of an account's roles, in order."""
    query = (
        select(account_roles.c.role_name)
        .where(account_roles.c.service_account_id == account_id)
        .order_by(account_roles.c.role_name)
    )
    return list(session.scalars(query))


def insert_account(row: Mapping[str, Any]) -> None:
    """Insert an account in the open transaction. Raises ServiceAccountNameTaken."""
    with translated_conflicts():
        require_transaction().execute(insert(accounts), dict(row))


@contextmanager
def translated_conflicts() -> Iterator[None]:
    """Raise ServiceAccountNameTaken when a statement violates the unique name."""
    try:
        yield
    except IntegrityError as exc:
        if violated_constraint(exc) != "uq_service_accounts_name":
            raise
        raise ServiceAccountNameTaken() from exc
