"""Endpoints of users: /api/v1/users. Other modules add theirs to the same blueprint."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response, url_for

from userapi.accounts.editing import permissions_to_change
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
from userapi.errors import Stale
from userapi.infrastructure.pagination import InvalidCursor, PageRequest, PageTooDeep
from userapi.passwords.hashing_pool import Busy
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank, LastSuperadmin, PermissionEscalation
from userapi.roles.explanation import permission_chains

from .access import requires
from .blueprint import Blueprint
from .bodies import readable_members
from .context import current_actor, services
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import as_json, if_match, user_response
from .schemas.common import PAGE_FIELDS
from .schemas.users import (
    ExplainedPermissions,
    RoleAssignment,
    RoleNames,
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
    description="Accounts: find, create, change, suspend and delete them; their roles, sessions.",
)

IDENTITY_FIELDS = ("username", "email", "password")
CREATION_FIELDS = ("roles", "status", "metadata", "must_change_password")

# Requests that readers of the document can send unchanged. The generated ones would be rejected.
CREATION_EXAMPLE = {
    "username": "ada",
    "email": "ada@example.com",
    "password": "violet-harbour-93-lantern",
    "first_name": "Ada",
    "roles": ["user"],
}
UPDATE_EXAMPLE = {"first_name": "Ada", "last_name": "Lovelace", "timezone": "Europe/London"}


def new_user(body: Mapping[str, Any]) -> NewUser:
    """Return the new user that a body describes."""
    given = {n: body[n] for n in (*IDENTITY_FIELDS, *CREATION_FIELDS) if n in body}
    return NewUser(**given, profile={n: body[n] for n in PROFILE_FIELDS if n in body})


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
    """List users. All filters can be combined."""
    page = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
    return as_json(services().user_search.page(UserFilter(**query), PageRequest(**page)))


@blp.route("/", methods=["POST"], strict_slashes=False)
@requires(Permission.USERS_CREATE)
@blp.arguments(UserCreation, example=CREATION_EXAMPLE)
@blp.response(201, User)
@blp.raises(UsernameTaken, EmailTaken, PermissionEscalation, Busy, *IDEMPOTENCY_ERRORS)
@idempotent(_created)
def create(body: dict[str, Any], *, idempotency: Any) -> None:
    """Create a user. Without a password they are invited by mail and pending until they set one."""
    services().account_creation.create(
        new_user(body), actor=current_actor(), idempotency=idempotency
    )


@blp.route("/<uuid:user_id>", methods=["GET"])
@requires(Permission.USERS_READ, or_self="user_id")
@blp.response(200, User)
@blp.raises(UserNotFound)
def show(user_id: UUID) -> Any:
    """Get a user."""
    return user_response(services().accounts.get(user_id))


def _permissions_of_fields() -> list[Permission]:
    """Return the permissions that the fields in the body need, whatever their values."""
    return permissions_to_change(readable_members().keys())


@blp.route("/<uuid:user_id>", methods=["PUT"], endpoint="replace")
@blp.route("/<uuid:user_id>", methods=["PATCH"])
@requires(
    Permission.USERS_UPDATE,
    Permission.USERS_SUSPEND,
    Permission.ROLES_ASSIGN,
    or_self="user_id",
    needed=_permissions_of_fields,
)
@blp.arguments(UserUpdate, example=UPDATE_EXAMPLE)
@blp.response(200, User)
@blp.raises(
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
def update(body: dict[str, Any], user_id: UUID) -> Any:
    """Change a user. Omitted fields keep their values.

    Users may change their own profile. All other changes need `users:update`, the status
    `users:suspend` and the roles `roles:assign`. Users change their own `email` through
    `/auth/change-email`. The former address of any other user receives a mail.
    """
    user = services().account_editing.update(
        user_id, body, actor=current_actor(), if_match=if_match()
    )
    return user_response(user)


@blp.route("/<uuid:user_id>", methods=["DELETE"])
@requires(Permission.USERS_DELETE)
@blp.response(204)
@blp.raises(UserNotFound, InsufficientRank, LastSuperadmin, SelfActionRefused, Stale)
def delete(user_id: UUID) -> None:
    """Delete a user and their sessions. Audit rows stay; the name and address become available."""
    services().account_deletion.delete(user_id, actor=current_actor(), if_match=if_match())


@blp.route("/<uuid:user_id>/roles", methods=["GET"])
@requires(Permission.USERS_READ)
@blp.response(200, RoleNames)
@blp.raises(UserNotFound)
def show_roles(user_id: UUID) -> Any:
    """Get the roles of a user."""
    return services().accounts.get(user_id)


@blp.route("/<uuid:user_id>/roles", methods=["PUT"])
@requires(Permission.ROLES_ASSIGN)
@blp.arguments(RoleAssignment)
@blp.response(200, RoleNames)
@blp.raises(UserNotFound, InsufficientRank, PermissionEscalation, LastSuperadmin, Stale)
def replace_roles(body: dict[str, Any], user_id: UUID) -> Any:
    """Replace the roles of a user. An empty list assigns `user`."""
    return services().role_assignment.set_roles(
        user_id, body["roles"], actor=current_actor(), if_match=if_match()
    )


@blp.route("/<uuid:user_id>/permissions", methods=["GET"])
@requires(Permission.USERS_READ)
@blp.response(200, ExplainedPermissions)
@blp.raises(UserNotFound)
def explain_permissions(user_id: UUID) -> Any:
    """List the permissions of a user, each with the chains of roles that grant it."""
    return {"items": permission_chains(services().accounts.get(user_id).roles)}
