"""The last part of every sign-in: the session starts once all steps have succeeded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.service import Accounts
from userapi.accounts.views import ALL_USERS, COLUMNS, UserView, user_view, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.infrastructure.database import after_commit, require_transaction
from userapi.lockout.service import Lockout
from userapi.recorder import Recorder
from userapi.roles.graph import catalogue_version
from userapi.sessions.authentication_level import authenticated_by
from userapi.sessions.models import SessionKind, UserSession
from userapi.sessions.service import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A session that has started, its user, and the version of the role catalogue."""

    session: UserSession
    user: UserView
    catalogue_version: int


class SignInCompletion:
    """Starts the session of a user who has passed all steps of a sign-in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        lockout: Lockout,
        sessions: Sessions,
        count: Callable[[str], None],
    ) -> None:
        """`count` counts a complete sign-in by its method: password or passkey."""
        self._recorder = recorder
        self._accounts = accounts
        self._lockout = lockout
        self._sessions = sessions
        self._count = count

    def complete(
        self,
        user: User,
        *,
        actor: Actor,
        methods: Sequence[str],
        passed: Sequence[str],
        remember_me: bool,
        kind: SessionKind,
        details: Mapping[str, Any],
    ) -> SignedIn:
        """Start a session for a locked, active user, in the open transaction.

        `methods` are those of RFC 8176 by which the user was authenticated, `passed` the keys whose
        failures it clears. `details` go to the audit log: the `method` of the sign-in, its last
        `step`, and the second `factor`.
        """
        session = require_transaction()
        now = self._recorder.now()
        self._lockout.clear(passed)
        # Another identifier of the user, or the codes, may still be locked.
        self._accounts.show_longest_lock(user)
        user.last_login_at = now
        self._accounts.invalidate_cached_sessions(user)
        session.flush()
        view, version = _read_user(session, user.id, now)
        proof = authenticated_by(methods, at=now)
        own = self._sessions.start(
            view.facts,
            actor=actor,
            remember_me=remember_me,
            kind=kind,
            authentication=proof,
        )
        self._recorder.audit.record(
            AuditAction.AUTH_LOGIN,
            actor=replace(actor, session_id=own.id),
            target=("user", user.id),
            details={**details, "acr": proof.acr, "amr": proof.amr},
        )
        after_commit(lambda: self._count(details["method"]))
        return SignedIn(session=own, user=view, catalogue_version=version)


_USER = ALL_USERS.add_columns(catalogue_version()).where(users.c.id == bindparam("of_user"))


def _read_user(session: Session, user_id: UUID, now: datetime) -> tuple[UserView, int]:
    """Return a user whose row the open transaction has locked, and the catalogue's version."""
    row = session.execute(_USER, {"of_user": user_id}).one()
    return user_view(row, now), row[COLUMNS]
