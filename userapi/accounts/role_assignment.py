"""Role assignment: which roles a user has."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts, require_not_last_superadmin
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.permissions import Permission
from userapi.roles.assignment import replace_roles, require_listed
from userapi.roles.models import TOP_ROLE
from userapi.roles.service import Roles


class RoleAssignment:
    """Grants roles to users and withdraws them.

    Every method raises UserNotFound, PermissionDenied, InsufficientRank, Invalid,
    PermissionEscalation, LastSuperadmin.
    """

    def __init__(self, *, accounts: Accounts, roles: Roles) -> None:
        self._accounts = accounts
        self._roles = roles

    def set_roles(
        self,
        user_id: UUID,
        role_names: Collection[str],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> UserView:
        """Replace the roles of a user; an empty list sets the base role. Also raises Stale."""
        actor.require(Permission.ROLES_ASSIGN)
        wanted = list(role_names)
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id, if_match=if_match)
            self.require_listed(wanted)
            self.change(session, user, wanted, actor=actor)
            view = self._accounts.view(session, user_id)
        return view

    def add_role(
        self, user_id: UUID, role: str, *, actor: Actor, reason: str | None = None
    ) -> UserView:
        """Grant one role. Does nothing if the user has it."""
        actor.require(Permission.ROLES_ASSIGN)
        with transaction() as session:
            user, role_names = self._accounts.locked_for(actor, session, user_id)
            self.change(session, user, {*role_names, role}, actor=actor, reason=reason)
            view = self._accounts.view(session, user_id)
        return view

    def remove_role(
        self, user_id: UUID, role: str, *, actor: Actor, reason: str | None = None
    ) -> UserView:
        """Withdraw one role. Does nothing if the user does not have it."""
        actor.require(Permission.ROLES_ASSIGN)
        with transaction() as session:
            user, role_names = self._accounts.locked_for(actor, session, user_id)
            self.change(session, user, set(role_names) - {role}, actor=actor, reason=reason)
            view = self._accounts.view(session, user_id)
        return view

    # Steps of other use cases, inside their transaction

    def require_listed(self, role_names: Sequence[str]) -> None:
        """Raise Invalid for each name that is not a role in the open transaction."""
        if role_names:
            require_listed(role_names, self._roles.graph_now().names)

    def change(
        self,
        session: Session,
        user: User,
        role_names: Collection[str],
        *,
        actor: Actor,
        reason: str | None = None,
    ) -> None:
        """Replace the roles of a locked user."""
        before, after = replace_roles(user.id, role_names)
        if before == after:
            return
        self._roles.require_may_grant(actor, [name for name in after if name not in before])
        if TOP_ROLE in before and TOP_ROLE not in after:
            require_not_last_superadmin(user, before)
        self._accounts.save(
            session,
            user,
            AuditAction.USER_ROLES_CHANGED,
            EventType.USER_ROLES_CHANGED,
            actor=actor,
            changes={"roles": (before, after)},
            details={"reason": reason},
            changed=["roles"],
        )
