"""Endpoints that act on users: suspend, activate, unlock, reset the password, or many at a time."""

from typing import Any
from uuid import UUID

from userapi.accounts.bulk_actions import PERMISSIONS, BulkAction
from userapi.accounts.errors import InvalidStatusTransition, SelfActionRefused, UserNotFound
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank, LastSuperadmin

from .access import requires
from .bodies import readable_members
from .context import current_actor, services
from .responses import user_response
from .schemas.auth import Accepted
from .schemas.users import BulkAnswer, BulkRequest, OptionalReason, Suspension, User
from .users import blp

BULK_EXAMPLE = {
    "action": "suspend",
    "user_ids": ["019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"],
    "reason": "Chargeback",
}


@blp.route("/<uuid:user_id>/suspend", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
@blp.arguments(Suspension, required=False)
@blp.response(200, User)
@blp.raises(
    UserNotFound, InsufficientRank, LastSuperadmin, SelfActionRefused, InvalidStatusTransition
)
def suspend(body: dict[str, Any], user_id: UUID) -> Any:
    """Suspend a user and end their sessions immediately."""
    user = services().account_suspension.suspend(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/activate", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, User)
@blp.raises(UserNotFound, InsufficientRank, InvalidStatusTransition)
def activate(body: dict[str, Any], user_id: UUID) -> Any:
    """Activate a pending or suspended user."""
    user = services().account_suspension.activate(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/unlock", methods=["POST"])
@requires(Permission.USERS_UNLOCK)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, User)
@blp.raises(UserNotFound, InsufficientRank)
def unlock(body: dict[str, Any], user_id: UUID) -> Any:
    """Clear failed log-ins, so that the user can log in again."""
    user = services().account_suspension.unlock(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/reset-password", methods=["POST"])
@requires(Permission.USERS_UPDATE)
@blp.response(202, Accepted)
@blp.raises(UserNotFound, InsufficientRank)
def reset_password(user_id: UUID) -> Any:
    """Mail a user a link to set a new password, and end their sessions."""
    services().forced_reset.start(user_id, actor=current_actor())
    return {}


def _permission_of_action() -> list[Permission]:
    """Return the permission of the action in the body; none without a valid action."""
    action = readable_members().get("action")
    if not isinstance(action, str) or action not in list(BulkAction):
        return []
    return [PERMISSIONS[BulkAction(action)]]


@blp.route("/bulk", methods=["POST"])
@requires(
    Permission.USERS_SUSPEND,
    Permission.USERS_UNLOCK,
    Permission.USERS_DELETE,
    Permission.ROLES_ASSIGN,
    needed=_permission_of_action,
)
@blp.arguments(BulkRequest, example=BULK_EXAMPLE)
@blp.response(200, BulkAnswer)
def change_many(body: dict[str, Any]) -> Any:
    """Apply one action to many users. An error for one user does not affect the others.

    `suspend` and `activate` need `users:suspend`, `unlock` needs `users:unlock`, `delete` needs
    `users:delete`, `assign_role` and `remove_role` need `roles:assign`.
    """
    results = services().bulk.run(**body, actor=current_actor())
    failed = sum(result.code is not None for result in results)
    return {"results": results, "succeeded": len(results) - failed, "failed": failed}
