"""The owners of API keys: users and service accounts, locked for every change of their keys.

The lock on the owner's row puts all changes of the owner's keys in order: two rotations of one key,
and creations at the limit.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.machines.accounts import ServiceAccounts
from userapi.machines.models import ApiKey, OwnerType, ServiceAccount
from userapi.machines.views import AccountFacts
from userapi.permissions import PermissionSet
from userapi.roles.errors import PermissionEscalation
from userapi.roles.service import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """Whose keys a use case is about."""

    type: OwnerType
    id: UUID

    def owns(self, key: ApiKey) -> bool:
        """Return whether a key is one of this owner's."""
        owner_id = key.user_id if self.type is OwnerType.USER else key.service_account_id
        return owner_id == self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedOwner:
    """An owner whose row the open transaction has locked."""

    facts: AccountFacts
    row: User | ServiceAccount
    held: PermissionSet

    def require_holds(self, permissions: list[str] | None) -> None:
        """Raise PermissionEscalation if a key's list names what the owner does not hold."""
        missing = self.held.missing_from(PermissionSet(permissions or ()))
        if missing:
            raise PermissionEscalation(missing_permissions=list(missing))


def user_owner(user_id: UUID) -> KeyOwner:
    """Return a user as the owner of personal keys."""
    return KeyOwner(type=OwnerType.USER, id=user_id)


def service_owner(account_id: UUID) -> KeyOwner:
    """Return a service account as the owner of keys."""
    return KeyOwner(type=OwnerType.SERVICE, id=account_id)


class KeyOwners:
    """Locks owners whose keys the actor may change, and invalidates what is copied of them."""

    def __init__(
        self, *, accounts: Accounts, service_accounts: ServiceAccounts, roles: Roles
    ) -> None:
        self._accounts = accounts
        self._service_accounts = service_accounts
        self._roles = roles

    def require(self, owner: KeyOwner) -> None:
        """Raise UserNotFound or ServiceAccountNotFound for an owner that does not exist."""
        if owner.type is OwnerType.USER:
            self._accounts.get(owner.id)
        else:
            self._service_accounts.get(owner.id)

    def lock(self, session: Session, owner: KeyOwner, *, actor: Actor) -> LockedOwner:
        """Lock an owner.

        Raises UserNotFound, ServiceAccountNotFound, SelfActionRefused, InsufficientRank.
        """
        if owner.type is OwnerType.USER:
            user, _ = self._accounts.locked_for(actor, session, owner.id)
            return self.of_user(session, user)
        account = self._service_accounts.locked_for(actor, session, owner.id)
        return self.of_account(session, account)

    def of_user(self, session: Session, user: User) -> LockedOwner:
        """Return a locked user as an owner."""
        view = self._accounts.view(session, user.id)
        facts = AccountFacts(
            owner_type=OwnerType.USER,
            id=user.id,
            name=view.username,
            status=view.status,
            roles=view.roles,
        )
        return LockedOwner(facts=facts, row=user, held=self._roles.effective_now(view.roles))

    def of_account(self, session: Session, account: ServiceAccount) -> LockedOwner:
        """Return a locked service account as an owner."""
        facts = self._service_accounts.view(session, account.id).facts
        return LockedOwner(facts=facts, row=account, held=self._roles.effective_now(facts.roles))

    def invalidate_tokens(self, owner: LockedOwner) -> None:
        """Make the next request of every client token of the owner's keys read them again."""
        if isinstance(owner.row, ServiceAccount):
            self._service_accounts.invalidate_copies(owner.row)
