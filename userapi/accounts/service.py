"""Reading accounts, and the steps that every change of an account consists of.

The use cases are modules of their own: `registration`, `creation`, `editing`, `role_assignment`,
`suspension`, `deletion`, `email_confirmation`, `session_revocation`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from userapi.accounts.addresses import canonical_identifier, parse_email, parse_username
from userapi.accounts.errors import UserNotFound, translated_conflicts
from userapi.accounts.models import User, UserStatus
from userapi.accounts.new_users import NewUser, user_row
from userapi.accounts.views import UserView, find_user, is_identified_by, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.masking import Changes
from userapi.errors import Stale
from userapi.events.catalogue import EventType, UserEvent
from userapi.infrastructure.database import after_commit, reading
from userapi.lockout.service import Lockout
from userapi.recorder import Recorder
from userapi.roles.assignment import require_other_superadmin, role_names_of
from userapi.roles.models import TOP_ROLE
from userapi.roles.service import Roles
from userapi.sessions.status import LiveSessions

_INSERT = insert(users)


class Accounts:
    """Reads accounts. The other methods are steps of use cases, inside their transaction."""

    def __init__(
        self, *, recorder: Recorder, roles: Roles, live: LiveSessions, lockout: Lockout
    ) -> None:
        self._recorder = recorder
        self._roles = roles
        self._live = live
        self._lockout = lockout

    def get(self, user_id: UUID) -> UserView:
        """Return a user. Raises UserNotFound."""
        with reading() as connection:
            found = find_user(connection, user_id, self._recorder.now())
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

    # Steps of use cases

    def view(self, session: Session, user_id: UUID) -> UserView:
        """Return a user as the open transaction reads them. Raises UserNotFound."""
        view = find_user(session, user_id, self._recorder.now())
        if view is None:
            raise UserNotFound()
        return view

    def locked(self, session: Session, user_id: UUID) -> tuple[User, list[str]]:
        """Lock a user and return them with the names of their roles. Raises UserNotFound."""
        user = session.get(User, user_id, with_for_update=True)
        if user is None:
            raise UserNotFound()
        return user, role_names_of(session, user_id)

    def locked_for(
        self,
        actor: Actor,
        session: Session,
        user_id: UUID,
        *,
        if_match: Collection[str] | None = None,
    ) -> tuple[User, list[str]]:
        """Lock a user whom the actor may change, as `locked` does.

        Raises UserNotFound, Stale for a version that is not in `if_match`, InsufficientRank.
        """
        user, role_names = self.locked(session, user_id)
        if if_match is not None and str(user.version) not in if_match:
            raise Stale()
        self._roles.require_outranks(actor, user_id, role_names)
        return user, role_names

    def add(
        self, session: Session, new: NewUser, password_hash: str | None, status: UserStatus
    ) -> UUID:
        """Insert a user without roles and return the id. Raises UsernameTaken, EmailTaken."""
        row = user_row(
            username=parse_username(new.username),
            email=parse_email(new.email),
            password_hash=password_hash,
            status=status,
            now=self._recorder.now(),
            profile=new.profile,
            metadata=new.metadata,
            must_change_password=new.must_change_password,
        )
        with translated_conflicts():
            session.execute(_INSERT, row)
        user_id: UUID = row["id"]
        return user_id

    def save(
        self,
        session: Session,
        user: User,
        action: AuditAction,
        event: EventType,
        *,
        actor: Actor,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
        changed: Sequence[str] = (),
    ) -> UserView:
        """Write a changed, locked user with a new version, its audit row and its event.

        Returns the user after the change. Raises UsernameTaken, EmailTaken.
        """
        self.bump_version(user)
        # Flushed here, because the next statement would flush it outside of the translation.
        with translated_conflicts():
            session.flush()
        view = self.view(session, user.id)
        self.record(
            view, action, event, actor=actor, changes=changes, details=details, changed=changed
        )
        return view

    def record(
        self,
        view: UserView,
        action: AuditAction,
        event: EventType,
        *,
        actor: Actor,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
        changed: Sequence[str] = (),
    ) -> None:
        """Add the audit row and the event of a change. Empty details are left out."""
        self._recorder.audit.record(
            action,
            actor=actor,
            target=("user", view.id),
            changes=changes,
            details={name: value for name, value in (details or {}).items() if value},
        )
        self._recorder.outbox.append(
            UserEvent(type=event, user=view.facts, changed=changed), actor=actor
        )

    def bump_version(self, user: User) -> None:
        """Give a locked, changed user the next version."""
        user.version += 1
        user.updated_at = self._recorder.now()
        self.invalidate_cached_sessions(user)

    def invalidate_cached_sessions(self, user: User) -> None:
        """Make the next request of every session of a locked user read the user again."""
        user.access_version += 1
        user_id, version = user.id, user.access_version
        after_commit(lambda: self._live.user_changed(user_id, access_version=version))

    def lockout_keys(self, user: User) -> list[str]:
        """Return the keys that count the failures of this user: of log-ins, and of codes."""
        return [*self._identifier_keys(user), self._lockout.key_of_codes(user.id)]

    def clear_failed_logins(self, user: User) -> None:
        """Clear the failed log-ins of a locked user's name and address, but not wrong codes."""
        self._lockout.clear(self._identifier_keys(user))
        self.show_longest_lock(user)

    def clear_wrong_codes(self, user: User) -> None:
        """Clear the wrong codes of a locked user, but not the failed log-ins."""
        self._lockout.clear([self._lockout.key_of_codes(user.id)])
        if user.locked_until is not None:
            self.show_longest_lock(user)

    def clear_all_failures(self, user: User) -> None:
        """Clear the failed log-ins and the wrong codes of a locked user."""
        self._lockout.clear(self.lockout_keys(user))
        user.locked_until = None

    def show_longest_lock(self, user: User) -> None:
        """Store in the row of a locked user when the last of the user's locks ends."""
        user.locked_until = self._lockout.longest_lock(self.lockout_keys(user))

    def _identifier_keys(self, user: User) -> list[str]:
        return [self._lockout.key_of(name) for name in (user.username, user.email_normalized)]


def require_not_last_superadmin(user: User, role_names: Collection[str]) -> None:
    """Raise LastSuperadmin if no other active superadmin remains without this locked user."""
    if TOP_ROLE in role_names and user.status == UserStatus.ACTIVE:
        require_other_superadmin(user.id, active=users.c.status == UserStatus.ACTIVE, users=users)
