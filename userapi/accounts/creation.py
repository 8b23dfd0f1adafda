"""Creation: an administrator creates or invites a user."""

from userapi.accounts.models import UserStatus
from userapi.accounts.new_users import NewUser
from userapi.accounts.service import Accounts
from userapi.accounts.validation import require_valid_account
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.errors import require_all
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.tools import PasswordTools
from userapi.permissions import Permission
from userapi.roles.assignment import give_first_roles, require_few_roles, require_listed
from userapi.roles.service import Roles


class AccountCreation:
    """Creates accounts for other people."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        audit: AuditTrail,
        roles: Roles,
        passwords: PasswordTools,
        one_time_tokens: OneTimeTokens,
    ) -> None:
        self._accounts = accounts
        self._audit = audit
        self._roles = roles
        self._passwords = passwords
        self._one_time_tokens = one_time_tokens

    def create(
        self, new: NewUser, *, actor: Actor, idempotency: IdempotencyStore | None = None
    ) -> UserView:
        """Create an account and return it.

        Without a password it is an invitation: the account is pending, and a mail has a link that
        sets the password. Raises Invalid, UsernameTaken, EmailTaken, PermissionDenied,
        PermissionEscalation.
        """
        if new.roles:
            actor.require(Permission.ROLES_ASSIGN)
        self._require_valid(new)
        invited = new.password is None
        status = UserStatus.PENDING if invited else (new.status or UserStatus.ACTIVE)
        password_hash = None if new.password is None else self._passwords.hasher.hash(new.password)
        with transaction() as session:
            if idempotency:
                idempotency.claim()
            user_id = self._accounts.add(session, new, password_hash, status)
            role_names = give_first_roles(user_id, new.roles)
            if new.roles:
                self._roles.require_may_grant(actor, role_names)
            view = self._accounts.view(session, user_id)
            self._accounts.record(
                view,
                AuditAction.USER_CREATED,
                EventType.USER_CREATED,
                actor=actor,
                details={"roles": role_names, "status": str(status)},
            )
            if invited:
                self._invite(view, actor)
            if idempotency:
                idempotency.store(view, user_id=view.id)
        return view

    def _require_valid(self, new: NewUser) -> None:
        given = {"username": new.username, "email": new.email, "password": new.password}
        require_all(
            lambda: require_valid_account(given, self._passwords.policy),
            lambda: require_few_roles(new.roles),
            lambda: require_listed(new.roles, self._roles.graph().names) if new.roles else None,
        )

    def _invite(self, view: UserView, actor: Actor) -> None:
        self._one_time_tokens.send(
            TokenPurpose.INVITATION, user_id=view.id, email=view.email, actor=actor
        )
        self._audit.record(AuditAction.USER_INVITED, actor=actor, target=("user", view.id))
