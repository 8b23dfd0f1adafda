"""Editing: changing the fields of a user."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.addresses import parse_email, parse_username
from userapi.accounts.errors import SelfActionRefused
from userapi.accounts.models import PROFILE_FIELDS, User, UserStatus
from userapi.accounts.role_assignment import RoleAssignment
from userapi.accounts.service import Accounts
from userapi.accounts.suspension import AccountSuspension
from userapi.accounts.validation import require_valid_names
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.masking import Changes
from userapi.errors import require_all
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.permissions import Permission


class AccountEditing:
    """Changes users: profile, name, address, metadata, status and roles."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        role_assignment: RoleAssignment,
        suspension: AccountSuspension,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
    ) -> None:
        self._accounts = accounts
        self._role_assignment = role_assignment
        self._suspension = suspension
        self._one_time_tokens = one_time_tokens
        self._mails = mails

    def update(
        self,
        user_id: UUID,
        changes: Mapping[str, Any],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> UserView:
        """Change the given fields and keep the others.

        Users need no permission for the fields of their own profile; every other field needs one.
        Their own address changes through a mail and requires the password, so that a stolen access
        token is not enough to take over an account. Raises UserNotFound, PermissionDenied,
        InsufficientRank, SelfActionRefused, Stale, Invalid, UsernameTaken, EmailTaken, and the
        errors of a change of status or roles.
        """
        _require_may_change(user_id, changes, actor)
        if "email" in changes and actor.is_user(user_id):
            raise SelfActionRefused("Change your own e-mail address through /auth/change-email.")
        with transaction() as session:
            user, _ = self._accounts.locked_for(actor, session, user_id, if_match=if_match)
            require_all(
                lambda: require_valid_names(changes),
                lambda: self._role_assignment.require_listed(changes.get("roles") or ()),
            )
            self._change_fields(session, user, changes, actor)
            if "roles" in changes:
                self._role_assignment.change(session, user, changes["roles"], actor=actor)
            if "status" in changes and changes["status"] != user.status:
                self._suspension.change_status(
                    session, user, UserStatus(changes["status"]), actor=actor
                )
            view = self._accounts.view(session, user_id)
        return view

    def _change_fields(
        self, session: Session, user: User, changes: Mapping[str, Any], actor: Actor
    ) -> None:
        email_before = user.email
        values = _column_values(user, changes)
        if "email_normalized" in values:
            self._one_time_tokens.void_all(user.id)
        changed = _differences(user, values)
        if not changed:
            return
        for column, value in values.items():
            setattr(user, column, value)
        shown = {name: change for name, change in changed.items() if name != "email_normalized"}
        view = self._accounts.save(
            session,
            user,
            AuditAction.USER_UPDATED,
            EventType.USER_UPDATED,
            actor=actor,
            changes=shown,
            changed=sorted(shown),
        )
        if user.email != email_before:
            self._report_email_change(view, email_before, actor)

    def _report_email_change(self, view: UserView, email_before: str, actor: Actor) -> None:
        """Record that an address changed, and mail the former address."""
        self._accounts.record(
            view,
            AuditAction.USER_EMAIL_CHANGED,
            EventType.USER_EMAIL_CHANGED,
            actor=actor,
            changes={"email": (email_before, view.email)},
        )
        self._mails.enqueue(
            MailKind.EMAIL_CHANGED,
            recipient=email_before,
            user_id=view.id,
            correlation_id=actor.correlation_id,
        )


def permissions_to_change(fields: Collection[str]) -> list[Permission]:
    """Return the permissions that a change of these fields of another user needs."""
    needed: set[Permission] = set()
    if set(fields) - {"status", "roles"}:
        needed.add(Permission.USERS_UPDATE)
    if "status" in fields:
        needed.add(Permission.USERS_SUSPEND)
    if "roles" in fields:
        needed.add(Permission.ROLES_ASSIGN)
    return sorted(needed)


def _require_may_change(user_id: UUID, changes: Mapping[str, Any], actor: Actor) -> None:
    fields = set(changes)
    if actor.is_session_of(user_id):
        fields -= set(PROFILE_FIELDS)
    for permission in permissions_to_change(fields):
        actor.require(permission)


def _column_values(user: User, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that the changes set, with their values.

    `email_normalized` is among them only for a different address, which is not verified.
    """
    values = {name: changes[name] for name in PROFILE_FIELDS if name in changes}
    if "username" in changes:
        values["username"] = parse_username(changes["username"])
    if "must_change_password" in changes:
        values["must_change_password"] = changes["must_change_password"]
    if "metadata" in changes:
        values["attributes"] = changes["metadata"]
    if "email" in changes:
        email = parse_email(changes["email"])
        values["email"] = email.shown
        if email.normalized != user.email_normalized:
            values["email_normalized"] = email.normalized
            values["email_verified"] = False
    return values


def _differences(user: User, values: Mapping[str, Any]) -> Changes:
    """Return the values that differ from the user's, with both, by the names of the API."""
    return {
        ("metadata" if column == "attributes" else column): (getattr(user, column), value)
        for column, value in values.items()
        if getattr(user, column) != value
    }
