"""What can be done with accounts. Every rule about users that the API, the command line and the
console share stands here; each public method is one transaction.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from userapi.accounts.addresses import canonical_identifier, parse_email, parse_username
from userapi.accounts.models import PROFILE_FIELDS, User, UserStatus, searchable
from userapi.accounts.views import UserView, find_user, is_identified_by, users
from userapi.actor import Actor, system_actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.clock import Clock
from userapi.errors import (
    Conflict,
    Forbidden,
    NotFound,
    ServiceError,
    Stale,
    invalid_field,
    require_all,
)
from userapi.events.catalogue import EventType, UserEvent
from userapi.events.outbox import Outbox
from userapi.infrastructure.database import (
    after_commit,
    new_id,
    reading,
    transaction,
    violated_constraint,
)
from userapi.infrastructure.idempotency_keys import IdempotencyStore, drop_answers_about
from userapi.lockout.service import Lockout
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.policy import PasswordPolicy
from userapi.permissions import Permission
from userapi.roles.models import BASE_ROLE, TOP_ROLE
from userapi.roles.service import (
    Roles,
    require_few_roles,
    require_listed,
    require_other_superadmin,
    role_names_of,
)
from userapi.sessions.service import EndReason, Sessions
from userapi.sessions.status import LiveSessions
from userapi.settings import Settings

_INSERT = insert(users)

# The moves between states that make sense; any other is a mistake of the caller.
ALLOWED_MOVES = {
    (UserStatus.PENDING, UserStatus.ACTIVE),
    (UserStatus.PENDING, UserStatus.SUSPENDED),
    (UserStatus.ACTIVE, UserStatus.SUSPENDED),
    (UserStatus.SUSPENDED, UserStatus.ACTIVE),
}


class UserNotFound(NotFound):
    """No user has that id."""

    title = "This user does not exist."


class UsernameTaken(Conflict):
    """Somebody else has the name."""

    code = "username_taken"
    title = "This user name is taken."


class EmailTaken(Conflict):
    """Somebody else has the address."""

    code = "email_taken"
    title = "This e-mail address is in use."


class InvalidStatusTransition(Conflict):
    """The account cannot go from its state to the wanted one."""

    code = "invalid_status_transition"
    title = "The account cannot change to this status."


class SelfActionRefused(Conflict):
    """Administrators do not remove or suspend themselves through the administration."""

    code = "self_action_refused"
    title = "You cannot do this to your own account."


class RegistrationDisabled(Forbidden):
    """The operator does not let people register themselves."""

    code = "registration_disabled"
    title = "Registration is closed."


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """What is given for a new account. Without a password it is an invitation."""

    username: str
    email: str
    password: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)
    roles: Sequence[str] = ()
    status: UserStatus | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    must_change_password: bool = False


class Accounts:
    """The use cases about accounts."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        audit: AuditTrail,
        outbox: Outbox,
        roles: Roles,
        sessions: Sessions,
        live: LiveSessions,
        lockout: Lockout,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._audit = audit
        self._outbox = outbox
        self._roles = roles
        self._sessions = sessions
        self._live = live
        self._lockout = lockout
        self._hasher = hasher
        self._policy = policy
        self._one_time_tokens = one_time_tokens
        self._mails = mails

    # Reading

    def get(self, user_id: UUID) -> UserView:
        """Return a user. Raises UserNotFound."""
        with reading() as connection:
            found = find_user(connection, user_id, self._clock.now())
        if found is None:
            raise UserNotFound()
        return found

    def get_by_name(self, name: str) -> UserView:
        """Return the user with this name or address. Raises UserNotFound."""
        with reading() as connection:
            user_id = connection.execute(
                select(users.c.id).where(is_identified_by(canonical_identifier(name)))
            ).scalar()
        if user_id is None:
            raise UserNotFound()
        return self.get(user_id)

    # Making

    def register(
        self, new: NewUser, *, actor: Actor, once: IdempotencyStore | None = None
    ) -> UserView | None:
        """Make the account that somebody asks for themselves, with the base role.

        Active at once; or, where addresses are verified, pending until the link in a mail is
        followed. Then the answer is None for a new and for a taken address alike: who registers
        learns nothing, and the owner of a taken one is notified by mail.
        Raises RegistrationDisabled, Invalid, UsernameTaken, EmailTaken.
        """
        if not self._settings.feature_user_registration:
            raise RegistrationDisabled()
        given = {"username": new.username, "email": new.email, "password": new.password or ""}
        self.require_valid(given, reserved_allowed=False)
        verifying = self._settings.feature_email_verification
        password_hash = self._hasher.hash(new.password or "")
        with transaction() as session:
            if once:
                once.begin()
            status = UserStatus.PENDING if verifying else UserStatus.ACTIVE
            view: UserView | None = None
            try:
                with session.begin_nested():
                    user = self._add(session, new, password_hash, status)
            except EmailTaken:
                if not verifying:
                    raise
                address = parse_email(new.email)
                owner = session.execute(
                    select(users.c.id).where(users.c.email_normalized == address.normalized)
                ).scalar_one_or_none()
                self._mails.enqueue(
                    MailKind.ACCOUNT_EXISTS,
                    recipient=address.shown,
                    user_id=owner,
                    correlation_id=actor.correlation_id,
                )
            else:
                self._roles.give_first(user.id, [BASE_ROLE])
                view = self.view(session, user.id)
                self._audit.record(
                    AuditAction.USER_REGISTERED, actor=actor, target=("user", user.id)
                )
                self._tell(EventType.USER_REGISTERED, view, actor)
                if verifying:
                    self._one_time_tokens.send(
                        TokenPurpose.EMAIL_VERIFICATION,
                        user_id=user.id,
                        email=user.email,
                        actor=actor,
                    )
            answer = None if verifying else view
            if once:
                once.keep(answer, user_id=answer.id if answer else None)
        return answer

    def create(
        self, new: NewUser, *, actor: Actor, once: IdempotencyStore | None = None
    ) -> UserView:
        """Make an account for somebody else. Without a password it is an invitation: pending, and
        a mail with a link that sets one.

        Raises Invalid, UsernameTaken, EmailTaken, PermissionDenied, PermissionEscalation.
        """
        invited = new.password is None
        if new.roles:
            actor.require(Permission.ROLES_ASSIGN)
        given = {"username": new.username, "email": new.email, "password": new.password}
        require_all(
            lambda: self.require_valid(given),
            lambda: require_few_roles(new.roles),
            lambda: require_listed(new.roles, self._roles.graph().names) if new.roles else None,
        )
        status = UserStatus.PENDING if invited else (new.status or UserStatus.ACTIVE)
        password_hash = None if new.password is None else self._hasher.hash(new.password)
        with transaction() as session:
            if once:
                once.begin()
            user = self._add(session, new, password_hash, status)
            names = self._roles.give_first(user.id, new.roles)
            if new.roles:
                self._roles.require_may_grant(actor, names)
            view = self.view(session, user.id)
            self._audit.record(
                AuditAction.USER_CREATED,
                actor=actor,
                target=("user", user.id),
                details={"roles": names, "status": str(status)},
            )
            self._tell(EventType.USER_CREATED, view, actor)
            if invited:
                self._one_time_tokens.send(
                    TokenPurpose.INVITATION, user_id=user.id, email=user.email, actor=actor
                )
                self._audit.record(AuditAction.USER_INVITED, actor=actor, target=("user", user.id))
            if once:
                once.keep(view, user_id=view.id)
        return view

    # Changing

    def update(
        self,
        user_id: UUID,
        changes: Mapping[str, Any],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> UserView:
        """Change the given fields and leave the others as they are.

        Profile fields need nothing when they are one's own; all others need permissions. One's own
        address is not changed here but confirmed by mail, and needs the password: a stolen token
        must not be enough to take an account over. Raises UserNotFound, PermissionDenied,
        InsufficientRank, SelfActionRefused, Stale, Invalid, UsernameTaken, EmailTaken, and what
        changing a status or roles raises.
        """
        self._require_may_change(user_id, changes, actor)
        if "email" in changes and actor.is_user(user_id):
            raise SelfActionRefused("Change your own e-mail address through /auth/change-email.")
        with transaction() as session:
            user, names = self.locked(session, user_id)
            if if_match is not None and str(user.version) not in if_match:
                raise Stale()
            self._roles.require_outranks(actor, user_id, names)
            require_all(
                lambda: self.require_valid(changes),
                lambda: self._require_listed_now(changes.get("roles")),
            )
            self._change_fields(session, user, changes, actor, names)
            if "roles" in changes:
                self._change_roles(session, user, changes["roles"], actor)
            if "status" in changes and changes["status"] != user.status:
                self._change_status(session, user, UserStatus(changes["status"]), actor=actor)
            view = self.view(session, user_id)
        return view

    def set_roles(
        self,
        user_id: UUID,
        role_names: Collection[str],
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
    ) -> UserView:
        """Give the user exactly these roles; none becomes the base role."""
        return self.update(user_id, {"roles": list(role_names)}, actor=actor, if_match=if_match)

    def add_role(
        self, user_id: UUID, role: str, *, actor: Actor, reason: str | None = None
    ) -> UserView:
        """Give the user one more role; having it already is no fault. Raises as `update`."""
        return self._change_one_role(user_id, actor=actor, reason=reason, added=role)

    def remove_role(
        self, user_id: UUID, role: str, *, actor: Actor, reason: str | None = None
    ) -> UserView:
        """Take one role from the user; not having it is no fault. Raises as `update`."""
        return self._change_one_role(user_id, actor=actor, reason=reason, removed=role)

    def suspend(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        reason: str | None = None,
        until: datetime | None = None,
    ) -> UserView:
        """Suspend a user and end every session they have. Raises as `update` does."""
        self.require_future(until)
        return self._move(user_id, UserStatus.SUSPENDED, actor=actor, reason=reason, until=until)

    def activate(self, user_id: UUID, *, actor: Actor, reason: str | None = None) -> UserView:
        """Make a pending or suspended user active."""
        return self._move(user_id, UserStatus.ACTIVE, actor=actor, reason=reason)

    def unlock(self, user_id: UUID, *, actor: Actor, reason: str | None = None) -> UserView:
        """Forget failed log-ins of a user's name and address, so that they can try again now."""
        with transaction() as session:
            user, names = self.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            self.clear_failed_logins(user)
            self._touch(user)
            session.flush()
            view = self.view(session, user_id)
            self._audit.record(
                AuditAction.USER_UNLOCKED,
                actor=actor,
                target=("user", user_id),
                details={"reason": reason} if reason else None,
            )
            self._tell(EventType.USER_UNLOCKED, view, actor)
        return view

    def lift_due(self, limit: int) -> int:
        """End suspensions whose time has come, at most so many; return how many were ended.

        Called by the worker, again and again. Each is a transaction of its own.
        """
        due = (
            select(users.c.id)
            .where(
                users.c.status == UserStatus.SUSPENDED,
                users.c.suspended_until.isnot(None),
                users.c.suspended_until <= self._clock.now(),
            )
            .order_by(users.c.suspended_until)
            .limit(limit)
        )
        with reading() as connection:
            user_ids = list(connection.scalars(due))
        actor = system_actor("worker")
        lifted = 0
        for user_id in user_ids:
            with transaction() as session:
                # Gone or active by now: somebody else was quicker.
                user = session.get(User, user_id, with_for_update=True)
                if user is not None and self.lift_suspension(session, user, actor=actor):
                    lifted += 1
        return lifted

    def delete(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        if_match: Collection[str] | None = None,
        reason: str | None = None,
    ) -> None:
        """Delete a user with their sessions; audit rows stay, name and address are free again.

        Raises UserNotFound, SelfActionRefused, InsufficientRank, LastSuperadmin.
        """
        if actor.is_user(user_id):
            raise SelfActionRefused()
        with transaction() as session:
            user, names = self.locked(session, user_id)
            if if_match is not None and str(user.version) not in if_match:
                raise Stale()
            self._roles.require_outranks(actor, user_id, names)
            self.remove(session, user, names, actor=actor, reason=reason)

    # Sessions of a user

    def end_session(
        self, user_id: UUID, session_id: UUID, *, actor: Actor, reason: EndReason
    ) -> None:
        """End one session of a user. Raises UserNotFound, SessionNotFound, InsufficientRank."""
        with transaction() as session:
            user, names = self.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            view = self.view(session, user.id)
            self._sessions.end(session_id, user=view.facts, actor=actor, reason=reason)

    def end_sessions(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        reason: EndReason = EndReason.REVOKED,
        keep: UUID | None = None,
    ) -> int:
        """End the sessions of a user, except `keep`; return how many ended."""
        with transaction() as session:
            user, names = self.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            view = self.view(session, user.id)
            return self._sessions.end_all(user=view.facts, actor=actor, reason=reason, keep=keep)

    # Building blocks for the subjects above, inside their transaction

    def remove(
        self,
        session: Session,
        user: User,
        names: Collection[str],
        *,
        actor: Actor,
        reason: str | None = None,
    ) -> None:
        """Take a locked user away for good."""
        self._require_not_last_superadmin(user, names)
        view = self.view(session, user.id)
        self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.ACCOUNT_DELETED)
        self.clear_failed_logins(user)
        self._audit.record(
            AuditAction.USER_DELETED,
            actor=actor,
            target=("user", user.id),
            details={"username": user.username} | ({"reason": reason} if reason else {}),
        )
        self._tell(EventType.USER_DELETED, view, actor)
        self.invalidate_cached_sessions(user)
        drop_answers_about(user.id)
        session.execute(delete(users).where(users.c.id == user.id))

    def clear_failed_logins(self, user: User) -> None:
        """Clear the failed log-ins of a locked user's name and address."""
        self._lockout.clear(self.lockout_keys(user))
        user.locked_until = None

    def lockout_keys(self, user: User) -> list[str]:
        """Return the keys under which failures of this user are counted."""
        return [self._lockout.key_of(name) for name in (user.username, user.email_normalized)]

    def lift_suspension(self, session: Session, user: User, *, actor: Actor) -> bool:
        """End a suspension that has run out; tell whether there was one."""
        if user.status != UserStatus.SUSPENDED or user.suspended_until is None:
            return False
        if user.suspended_until > self._clock.now():
            return False
        self._change_status(session, user, UserStatus.ACTIVE, actor=actor, reason="until_reached")
        return True

    def make_active(self, session: Session, user: User, *, actor: Actor) -> None:
        """Make a locked pending user active."""
        self._change_status(session, user, UserStatus.ACTIVE, actor=actor)

    def verify_email(self, session: Session, user: User, *, actor: Actor) -> None:
        """Take the address of a locked user as proven."""
        if user.email_verified:
            return
        user.email_verified = True
        self._touch(user)
        session.flush()
        view = self.view(session, user.id)
        self._audit.record(AuditAction.USER_EMAIL_VERIFIED, actor=actor, target=("user", user.id))
        self._tell(EventType.USER_EMAIL_VERIFIED, view, actor)

    def replace_email(self, session: Session, user: User, email: str, *, actor: Actor) -> None:
        """Give a locked user another address, not proven yet. Raises EmailTaken."""
        address = parse_email(email)
        before = user.email
        user.email = address.shown
        user.email_normalized = address.normalized
        user.email_verified = False
        self._touch(user)
        # Before anything else is asked of the database, for that would send the address too.
        with _conflicts():
            session.flush()
        self._one_time_tokens.void_all(user.id)
        self._audit.record(
            AuditAction.USER_EMAIL_CHANGED,
            actor=actor,
            target=("user", user.id),
            changes={"email": (before, user.email)},
        )
        self._tell(EventType.USER_EMAIL_CHANGED, self.view(session, user.id), actor)

    def require_valid(self, given: Mapping[str, Any], *, reserved_allowed: bool = True) -> None:
        """Raise Invalid with every rule that the name, the address and the password break; what is
        left out breaks none.
        """
        username, email, password = (given.get(n) for n in ("username", "email", "password"))
        checks: list[Callable[[], object]] = []
        if username is not None:
            checks.append(lambda: parse_username(username, reserved_allowed=reserved_allowed))
        if email is not None:
            checks.append(lambda: parse_email(email))
        if password is not None:
            checks.append(lambda: self._policy.require(password, username=username, email=email))
        require_all(*checks)

    def require_future(self, until: datetime | None) -> None:
        """Raise Invalid for the end of a suspension that has passed already."""
        if until is not None and until <= self._clock.now():
            raise invalid_field("until", "Must be a time in the future.", "in_the_past")

    # Steps

    def _require_listed_now(self, role_names: Sequence[str] | None) -> None:
        if role_names:
            require_listed(role_names, self._roles.graph_now().names)

    def _add(
        self, session: Session, new: NewUser, password_hash: str | None, status: UserStatus
    ) -> User:
        username, email = parse_username(new.username), parse_email(new.email)
        now = self._clock.now()
        profile = {name: new.profile.get(name) for name in PROFILE_FIELDS}
        row: dict[str, Any] = {
            "id": new_id(),
            "username": username,
            "email": email.shown,
            "email_normalized": email.normalized,
            "email_verified": False,
            "password_hash": password_hash,
            "password_changed_at": now if password_hash else None,
            "must_change_password": new.must_change_password,
            "status": status,
            "attributes": dict(new.metadata),
            "search_text": searchable(
                username, email.shown, profile["first_name"], profile["last_name"]
            ),
            "version": 1,
            "access_version": 1,
            "created_at": now,
            "updated_at": now,
            **profile,
        }
        with _conflicts():
            session.execute(_INSERT, row)
        return User(**row)

    def _require_may_change(self, user_id: UUID, changes: Mapping[str, Any], actor: Actor) -> None:
        needed: set[Permission] = set()
        fields = changes.keys() - {"status", "roles"}
        if fields and not (actor.is_user(user_id) and fields <= set(PROFILE_FIELDS)):
            needed.add(Permission.USERS_UPDATE)
        if "status" in changes:
            needed.add(Permission.USERS_SUSPEND)
        if "roles" in changes:
            needed.add(Permission.ROLES_ASSIGN)
        for permission in sorted(needed):
            actor.require(permission)

    def locked(self, session: Session, user_id: UUID) -> tuple[User, list[str]]:
        """Return a user, locked, and the names of their roles. Raises UserNotFound."""
        user = session.get(User, user_id, with_for_update=True)
        if user is None:
            raise UserNotFound()
        return user, role_names_of(session, user_id)

    def _change_fields(
        self,
        session: Session,
        user: User,
        changes: Mapping[str, Any],
        actor: Actor,
        names: Sequence[str],
    ) -> None:
        values = {name: changes[name] for name in PROFILE_FIELDS if name in changes}
        if "username" in changes:
            values["username"] = parse_username(changes["username"])
        if "must_change_password" in changes:
            values["must_change_password"] = changes["must_change_password"]
        if "metadata" in changes:
            values["attributes"] = changes["metadata"]
        email_before = user.email
        if "email" in changes:
            email = parse_email(changes["email"])
            values["email"] = email.shown
            if email.normalized != user.email_normalized:
                values["email_normalized"] = email.normalized
                values["email_verified"] = False
                self._one_time_tokens.void_all(user.id)
        changed = {
            ("metadata" if name == "attributes" else name): (getattr(user, name), value)
            for name, value in values.items()
            if getattr(user, name) != value
        }
        if not changed:
            return
        for name, value in values.items():
            setattr(user, name, value)
        self._touch(user)
        with _conflicts():
            session.flush()
        changed.pop("email_normalized", None)
        view = self.view(session, user.id)
        self._audit.record(
            AuditAction.USER_UPDATED, actor=actor, target=("user", user.id), changes=changed
        )
        self._tell(EventType.USER_UPDATED, view, actor, changed=sorted(changed))
        if "email" in changed and email_before != user.email:
            self._audit.record(
                AuditAction.USER_EMAIL_CHANGED,
                actor=actor,
                target=("user", user.id),
                changes={"email": (email_before, user.email)},
            )
            self._tell(EventType.USER_EMAIL_CHANGED, view, actor)
            self._mails.enqueue(
                MailKind.EMAIL_CHANGED,
                recipient=email_before,
                user_id=user.id,
                correlation_id=actor.correlation_id,
            )

    def _change_one_role(
        self,
        user_id: UUID,
        *,
        actor: Actor,
        reason: str | None,
        added: str | None = None,
        removed: str | None = None,
    ) -> UserView:
        actor.require(Permission.ROLES_ASSIGN)
        with transaction() as session:
            user, names = self.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            wanted = {*names, *([added] if added else [])} - {removed}
            self._change_roles(session, user, [n for n in wanted if n], actor, reason=reason)
            view = self.view(session, user_id)
        return view

    def _change_roles(
        self,
        session: Session,
        user: User,
        wanted: Collection[str],
        actor: Actor,
        *,
        reason: str | None = None,
    ) -> None:
        before, after = self._roles.replace(user.id, wanted)
        if before == after:
            return
        self._roles.require_may_grant(actor, [name for name in after if name not in before])
        if TOP_ROLE in before and TOP_ROLE not in after:
            self._require_not_last_superadmin(user, before)
        self._touch(user)
        session.flush()
        view = self.view(session, user.id)
        self._audit.record(
            AuditAction.USER_ROLES_CHANGED,
            actor=actor,
            target=("user", user.id),
            changes={"roles": (before, after)},
            details={"reason": reason} if reason else None,
        )
        self._tell(EventType.USER_ROLES_CHANGED, view, actor, changed=["roles"])

    def _move(
        self,
        user_id: UUID,
        status: UserStatus,
        *,
        actor: Actor,
        reason: str | None = None,
        until: datetime | None = None,
    ) -> UserView:
        with transaction() as session:
            user, names = self.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            self._change_status(session, user, status, actor=actor, reason=reason, until=until)
            view = self.view(session, user_id)
        return view

    def _change_status(
        self,
        session: Session,
        user: User,
        status: UserStatus,
        *,
        actor: Actor,
        reason: str | None = None,
        until: datetime | None = None,
    ) -> None:
        if status is UserStatus.SUSPENDED and actor.is_user(user.id):
            raise SelfActionRefused()
        if (UserStatus(user.status), status) not in ALLOWED_MOVES:
            raise InvalidStatusTransition(
                f"An account that is {user.status} cannot become {status}."
            )
        before = user.status
        suspending = status is UserStatus.SUSPENDED
        if suspending:
            self._require_not_last_superadmin(user, role_names_of(session, user.id))
        user.status = status
        user.status_reason = reason if suspending else None
        user.suspended_until = until if suspending else None
        self._touch(user)
        session.flush()
        view = self.view(session, user.id)
        details = {"reason": reason, "until": until.isoformat() if until else None}
        self._audit.record(
            AuditAction.USER_SUSPENDED if suspending else AuditAction.USER_ACTIVATED,
            actor=actor,
            target=("user", user.id),
            changes={"status": (before, str(status))},
            details={name: value for name, value in details.items() if value},
        )
        self._tell(
            EventType.USER_SUSPENDED if suspending else EventType.USER_ACTIVATED, view, actor
        )
        if suspending:
            self._one_time_tokens.void_all(user.id)
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.ACCOUNT_SUSPENDED)

    def _require_not_last_superadmin(self, user: User, names: Collection[str]) -> None:
        if TOP_ROLE in names and user.status == UserStatus.ACTIVE:
            require_other_superadmin(
                user.id, active=users.c.status == UserStatus.ACTIVE, users=users
            )

    def _touch(self, user: User) -> None:
        """Count a change of a locked user."""
        user.version += 1
        user.updated_at = self._clock.now()
        self.invalidate_cached_sessions(user)

    def invalidate_cached_sessions(self, user: User) -> None:
        """Have every live session of a locked user learn of a change with the next request."""
        user.access_version += 1
        user_id, version = user.id, user.access_version
        after_commit(lambda: self._live.user_changed(user_id, access_version=version))

    def view(self, session: Session, user_id: UUID) -> UserView:
        """Return a user as the open transaction sees them. Raises UserNotFound."""
        view = find_user(session, user_id, self._clock.now())
        if view is None:
            raise UserNotFound()
        return view

    def _tell(
        self, event: EventType, view: UserView, actor: Actor, changed: Sequence[str] = ()
    ) -> None:
        self._outbox.append(UserEvent(type=event, user=view.facts, changed=changed), actor=actor)


@contextmanager
def _conflicts() -> Iterator[None]:
    """Make a broken unique constraint the conflict that it stands for."""
    try:
        yield
    except IntegrityError as exc:
        taken: dict[str | None, type[ServiceError]] = {
            "uq_users_username": UsernameTaken,
            "uq_users_email_normalized": EmailTaken,
        }
        conflict = taken.get(violated_constraint(exc))
        if conflict is None:
            raise
        raise conflict() from exc
