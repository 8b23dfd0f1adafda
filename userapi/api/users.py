"""Endpoints of users: /api/v1/users."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response, url_for

from userapi.accounts.bulk import PERMISSIONS, BulkAction
from userapi.accounts.errors import (
    EmailTaken,
    InvalidStatusTransition,
    SelfActionRefused,
    UsernameTaken,
    UserNotFound,
)
from userapi.accounts.models import PROFILE_FIELDS
from userapi.accounts.new_users import NewUser
from userapi.accounts.search import UserFilter
from userapi.accounts.views import UserView
from userapi.authentication.password_check import InvalidCredentials
from userapi.errors import Malformed, Stale
from userapi.infrastructure.export import document_pieces
from userapi.infrastructure.pagination import InvalidCursor, PageRequest, PageTooDeep
from userapi.lockout.service import TooManyAttempts
from userapi.passwords.hashing_pool import Busy
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank, LastSuperadmin, PermissionEscalation
from userapi.roles.explanation import permission_chains
from userapi.sessions.service import EndReason, SessionNotFound

from .access import requires, signed_in
from .blueprint import Blueprint
from .bodies import parse_json, read_body
from .context import current_actor, current_session, services
from .exports import document_response
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import as_json, if_match, profile_response, user_response
from .schemas.auth import Accepted, SessionList
from .schemas.common import PAGE_FIELDS, Revoked
from .schemas.users import (
    BulkAnswer,
    BulkRequest,
    ExplainedPermissions,
    OptionalReason,
    OwnDeletion,
    PersonalExport,
    ProfileUpdate,
    RoleAssignment,
    RoleNames,
    Suspension,
    User,
    UserCreation,
    UserPage,
    UserQuery,
    UserUpdate,
)

blp = Blueprint(
    "users",
    __name__,
    url_prefix="/api/v1/users",
    description="Accounts: find, make, change, suspend, delete them; their roles and sessions.",
)

IDENTITY_FIELDS = ("username", "email", "password")
CREATION_FIELDS = ("roles", "status", "metadata", "must_change_password")

# What a reader can send as it stands: every field at once would be refused.
CREATION_EXAMPLE = {
    "username": "ada",
    "email": "ada@example.com",
    "password": "violet-harbour-93-lantern",
    "first_name": "Ada",
    "roles": ["user"],
}
UPDATE_EXAMPLE = {"first_name": "Ada", "last_name": "Lovelace", "timezone": "Europe/London"}
BULK_EXAMPLE = {
    "action": "suspend",
    "user_ids": ["019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"],
    "reason": "Chargeback",
}


def profile_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile fields of a body."""
    return {name: body[name] for name in PROFILE_FIELDS if name in body}


def _created(user: UserView) -> Response:
    response = user_response(user, 201)
    response.headers["Location"] = url_for("users.show", user_id=user.id)
    return response


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(Permission.USERS_READ)
@blp.arguments(UserQuery, location="query")
@blp.response(200, UserPage)
@blp.raises(InvalidCursor, PageTooDeep)
def index(query: dict[str, Any]) -> Any:
    """List users. Every filter combines with every other."""
    page = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
    return as_json(services().user_search.page(UserFilter(**query), PageRequest(**page)))


@blp.route("/", methods=["POST"], strict_slashes=False)
@requires(Permission.USERS_CREATE)
@blp.arguments(UserCreation, example=CREATION_EXAMPLE)
@blp.response(201, User)
@blp.raises(
    UsernameTaken,
    EmailTaken,
    PermissionEscalation,
    Busy,
    *IDEMPOTENCY_ERRORS,
)
@idempotent(_created)
def create(body: dict[str, Any], *, idempotency: Any) -> None:
    """Create a user. Without a password they are invited by mail and pending until they set one."""
    given = {n: body[n] for n in (*IDENTITY_FIELDS, *CREATION_FIELDS) if n in body}
    new = NewUser(**given, profile=profile_of(body))
    services().account_creation.create(new, actor=current_actor(), idempotency=idempotency)


@blp.route("/me", methods=["GET"])
@signed_in
@blp.response(200, User)
def show_me() -> Any:
    """Show the signed-in user."""
    live = current_session()
    if live.profile is not None:
        return profile_response(live.profile)
    return user_response(services().accounts.get(live.user_id))


def _update_me(body: dict[str, Any]) -> Any:
    user = services().account_editing.update(
        current_session().user_id, body, actor=current_actor(), if_match=if_match()
    )
    return user_response(user)


@blp.route("/me", methods=["PUT"])
@signed_in
@blp.arguments(ProfileUpdate)
@blp.response(200, User)
@blp.raises(Stale)
def replace_me(body: dict[str, Any]) -> Any:
    """Change the profile of the signed-in user; a field that is left out stays."""
    return _update_me(body)


@blp.route("/me", methods=["PATCH"])
@signed_in
@blp.arguments(ProfileUpdate)
@blp.response(200, User)
@blp.raises(Stale)
def update_me(body: dict[str, Any]) -> Any:
    """Change the profile of the signed-in user; a field that is left out stays."""
    return _update_me(body)


@blp.route("/me", methods=["DELETE"])
@signed_in
@blp.arguments(OwnDeletion)
@blp.response(204)
@blp.raises(InvalidCredentials, TooManyAttempts, LastSuperadmin, Busy)
def delete_me(body: dict[str, Any]) -> None:
    """Delete the account of the signed-in user for good."""
    services().own_account_deletion.delete(
        current_session().user_id,
        current_password=body["current_password"],
        actor=current_actor(),
    )


def personal_export(user_id: UUID) -> Response:
    """Return a download of all that is held about somebody, for themselves.

    It is sent as it is read: an audit log of any length costs the same memory.
    """
    pieces = document_pieces(
        {"profile": services().accounts.get(user_id)},
        {
            "sessions": services().sessions.all_of(user_id),
            "audit": services().audit_reader.all_about(user_id, actor=current_actor()),
        },
    )
    return document_response(pieces, filename="my-data.json")


@blp.route("/me/export", methods=["GET"])
@signed_in
@blp.response(200, PersonalExport)
def export_me() -> Any:
    """Give out all that the service holds about the signed-in user (GDPR art. 15)."""
    return personal_export(current_session().user_id)


@blp.route("/<uuid:user_id>/reset-password", methods=["POST"])
@requires(Permission.USERS_UPDATE)
@blp.response(202, Accepted)
@blp.raises(UserNotFound, InsufficientRank)
def reset_password(user_id: UUID) -> Any:
    """Mail a user a link that sets a new password, and end their sessions."""
    services().forced_reset.start(user_id, actor=current_actor())
    return {}


@blp.route("/<uuid:user_id>", methods=["GET"])
@requires(Permission.USERS_READ, or_self="user_id")
@blp.response(200, User)
@blp.raises(UserNotFound)
def show(user_id: UUID) -> Any:
    """Show a user."""
    return user_response(services().accounts.get(user_id))


def _update(user_id: UUID, body: dict[str, Any]) -> Any:
    user = services().account_editing.update(
        user_id, body, actor=current_actor(), if_match=if_match()
    )
    return user_response(user)


_UPDATE_REFUSALS = (
    UserNotFound,
    InsufficientRank,
    PermissionEscalation,
    LastSuperadmin,
    SelfActionRefused,
    InvalidStatusTransition,
    UsernameTaken,
    EmailTaken,
    Stale,
)


@blp.route("/<uuid:user_id>", methods=["PUT"])
@requires(
    Permission.USERS_UPDATE, Permission.USERS_SUSPEND, Permission.ROLES_ASSIGN, or_self="user_id"
)
@blp.arguments(UserUpdate, example=UPDATE_EXAMPLE)
@blp.response(200, User)
@blp.raises(*_UPDATE_REFUSALS)
def replace(body: dict[str, Any], user_id: UUID) -> Any:
    """Change a user; a field that is left out stays.

    One's own profile needs nothing; everything else `users:update`, the status `users:suspend` and
    roles `roles:assign`. One's own `email` is changed through `/auth/change-email`. The former
    address of any other user is notified by mail.
    """
    return _update(user_id, body)


@blp.route("/<uuid:user_id>", methods=["PATCH"])
@requires(
    Permission.USERS_UPDATE, Permission.USERS_SUSPEND, Permission.ROLES_ASSIGN, or_self="user_id"
)
@blp.arguments(UserUpdate, example=UPDATE_EXAMPLE)
@blp.response(200, User)
@blp.raises(*_UPDATE_REFUSALS)
def update(body: dict[str, Any], user_id: UUID) -> Any:
    """Change a user; a field that is left out stays.

    One's own profile needs nothing; everything else `users:update`, the status `users:suspend` and
    roles `roles:assign`. One's own `email` is changed through `/auth/change-email`. The former
    address of any other user is notified by mail.
    """
    return _update(user_id, body)


@blp.route("/<uuid:user_id>", methods=["DELETE"])
@requires(Permission.USERS_DELETE)
@blp.response(204)
@blp.raises(UserNotFound, InsufficientRank, LastSuperadmin, SelfActionRefused, Stale)
def delete(user_id: UUID) -> None:
    """Delete a user and their sessions. Audit rows stay; name and address are free again."""
    services().account_deletion.delete(user_id, actor=current_actor(), if_match=if_match())


@blp.route("/<uuid:user_id>/suspend", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
@blp.arguments(Suspension, required=False)
@blp.response(200, User)
@blp.raises(
    UserNotFound, InsufficientRank, LastSuperadmin, SelfActionRefused, InvalidStatusTransition
)
def suspend(body: dict[str, Any], user_id: UUID) -> Any:
    """Suspend a user and end every session they have, at once."""
    user = services().account_suspension.suspend(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/activate", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, User)
@blp.raises(UserNotFound, InsufficientRank, InvalidStatusTransition)
def activate(body: dict[str, Any], user_id: UUID) -> Any:
    """Make a pending or suspended user active."""
    user = services().account_suspension.activate(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/unlock", methods=["POST"])
@requires(Permission.USERS_UNLOCK)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, User)
@blp.raises(UserNotFound, InsufficientRank)
def unlock(body: dict[str, Any], user_id: UUID) -> Any:
    """Forget failed log-ins, so that the user can try again now."""
    user = services().account_suspension.unlock(user_id, actor=current_actor(), **body)
    return user_response(user)


@blp.route("/<uuid:user_id>/roles", methods=["GET"])
@requires(Permission.USERS_READ)
@blp.response(200, RoleNames)
@blp.raises(UserNotFound)
def show_roles(user_id: UUID) -> Any:
    """Show which roles a user has."""
    return services().accounts.get(user_id)


@blp.route("/<uuid:user_id>/roles", methods=["PUT"])
@requires(Permission.ROLES_ASSIGN)
@blp.arguments(RoleAssignment)
@blp.response(200, RoleNames)
@blp.raises(UserNotFound, InsufficientRank, PermissionEscalation, LastSuperadmin, Stale)
def replace_roles(body: dict[str, Any], user_id: UUID) -> Any:
    """Give a user exactly these roles; none becomes `user`."""
    return services().role_assignment.set_roles(
        user_id, body["roles"], actor=current_actor(), if_match=if_match()
    )


@blp.route("/<uuid:user_id>/permissions", methods=["GET"])
@requires(Permission.USERS_READ)
@blp.response(200, ExplainedPermissions)
@blp.raises(UserNotFound)
def explain_permissions(user_id: UUID) -> Any:
    """Show what a user may do, each permission with the chains of roles that give it."""
    return {"items": permission_chains(services().accounts.get(user_id).roles)}


@blp.route("/<uuid:user_id>/sessions", methods=["GET"])
@requires(Permission.SESSIONS_READ)
@blp.response(200, SessionList)
@blp.raises(UserNotFound)
def list_sessions(user_id: UUID) -> Any:
    """List the live sessions of a user, the one used last first."""
    user = services().accounts.get(user_id)
    current = current_session().session_id
    return {"items": services().sessions.list_of(user.id, current=current)}


@blp.route("/<uuid:user_id>/sessions", methods=["DELETE"])
@requires(Permission.SESSIONS_REVOKE)
@blp.response(200, Revoked)
@blp.raises(UserNotFound, InsufficientRank)
def end_sessions(user_id: UUID) -> Any:
    """End every session of a user, at once."""
    return {"revoked": services().session_revocation.end_sessions(user_id, actor=current_actor())}


@blp.route("/<uuid:user_id>/sessions/<uuid:session_id>", methods=["DELETE"])
@requires(Permission.SESSIONS_REVOKE)
@blp.response(204)
@blp.raises(UserNotFound, SessionNotFound, InsufficientRank)
def end_session(user_id: UUID, session_id: UUID) -> None:
    """End one session of a user."""
    services().session_revocation.end_session(
        user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
    )


def _permission_of_action() -> Permission | None:
    """Return the permission of the action that the body names; None if it names none."""
    try:
        body = parse_json(read_body())
    except Malformed:
        return None
    action = body.get("action") if isinstance(body, dict) else None
    if not isinstance(action, str) or action not in list(BulkAction):
        return None
    return PERMISSIONS[BulkAction(action)]


@blp.route("/bulk", methods=["POST"])
@requires(
    Permission.USERS_SUSPEND,
    Permission.USERS_UNLOCK,
    Permission.USERS_DELETE,
    Permission.ROLES_ASSIGN,
    missing=_permission_of_action,
)
@blp.arguments(BulkRequest, example=BULK_EXAMPLE)
@blp.response(200, BulkAnswer)
def change_many(body: dict[str, Any]) -> Any:
    """Do the same to many users, each by itself. What is refused for one leaves the others alone.

    `suspend` and `activate` need `users:suspend`, `unlock` needs `users:unlock`, `delete` needs
    `users:delete`, `assign_role` and `remove_role` need `roles:assign`.
    """
    results = services().bulk.run(**body, actor=current_actor())
    failed = sum(result.code is not None for result in results)
    return {"results": results, "succeeded": len(results) - failed, "failed": failed}
