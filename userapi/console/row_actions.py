"""The actions in the rows of the list of users: those that fit the state of each user."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from uuid import UUID

from userapi.accounts.models import UserStatus
from userapi.accounts.views import UserView
from userapi.api.context import current_actor, services
from userapi.permissions import Permission


class RowAction(StrEnum):
    """What a row offers, in the order of its menu."""

    UNLOCK = "unlock"
    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESET_PASSWORD = "reset_password"
    END_SESSIONS = "end_sessions"
    DELETE = "delete"


PERMISSIONS = {
    RowAction.UNLOCK: Permission.USERS_UNLOCK,
    RowAction.ACTIVATE: Permission.USERS_SUSPEND,
    RowAction.SUSPEND: Permission.USERS_SUSPEND,
    RowAction.RESET_PASSWORD: Permission.USERS_UPDATE,
    RowAction.END_SESSIONS: Permission.SESSIONS_REVOKE,
    RowAction.DELETE: Permission.USERS_DELETE,
}


def row_actions(users: Iterable[UserView]) -> dict[UUID, list[RowAction]]:
    """Return the actions that the actor may take on each user.

    There are none on a user whose rank is not below the actor's, and none on the actor, for whom
    there are separate pages.
    """
    actor, graph = current_actor(), services().roles.graph()
    held = [action for action, needed in PERMISSIONS.items() if needed in actor.permissions]
    return {
        user.id: _fitting(user, held)
        for user in users
        if not actor.is_user(user.id) and actor.permissions.outranks(graph.effective(user.roles))
    }


def _fitting(user: UserView, held: Collection[RowAction]) -> list[RowAction]:
    unfit = {
        RowAction.UNLOCK: user.locked_until is None,
        RowAction.ACTIVATE: user.status != UserStatus.SUSPENDED,
        RowAction.SUSPEND: user.status == UserStatus.SUSPENDED,
        RowAction.RESET_PASSWORD: user.status == UserStatus.PENDING,
    }
    return [action for action in held if not unfit.get(action, False)]
