"""The credentials that stay valid after a change of the password: sessions and API keys."""

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.accounts.views import UserView
from userapi.actor import Actor
from userapi.sessions.service import EndReason, Sessions


class PersonalKeys(Protocol):
    """The API keys of users. `machines`, a layer above, implements it."""

    def revoke_of_user(self, session: Session, user: User, *, actor: Actor) -> None:
        """Revoke the keys of a locked user whose password was reset by mail."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingCredentials:
    """The sessions and the API keys of users, which a reset of the password ends together."""

    sessions: Sessions
    keys: PersonalKeys

    def end(
        self, session: Session, user: User, view: UserView, *, actor: Actor, keys: bool
    ) -> None:
        """End all sessions of a locked user and, with `keys`, revoke all API keys."""
        self.sessions.end_all(user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)
        if keys:
            self.keys.revoke_of_user(session, user, actor=actor)
