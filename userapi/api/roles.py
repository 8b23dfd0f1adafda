"""Endpoints of roles: /api/v1/roles."""

from typing import Any

from flask import Response, url_for

from userapi.errors import Stale
from userapi.permissions import DESCRIPTIONS, Permission
from userapi.roles.definitions import RoleDefinition
from userapi.roles.errors import (
    BuiltinRole,
    InsufficientRank,
    PermissionEscalation,
    RoleCycle,
    RoleInUse,
    RoleNameTaken,
    RoleNotFound,
)
from userapi.roles.service import RoleView

from .access import requires
from .blueprint import Blueprint
from .context import current_actor, services
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import if_match, json_response
from .schemas.roles import PermissionList, Role, RoleCreation, RoleList, RoleUpdate

blp = Blueprint(
    "roles",
    __name__,
    url_prefix="/api/v1/roles",
    description="Named sets of permissions that inherit from each other.",
)

_role = Role()


def _role_response(role: RoleView, status: int = 200) -> Response:
    return json_response(_role, role, status, etag=str(role.version))


def _created(role: RoleView) -> Response:
    response = _role_response(role, 201)
    response.headers["Location"] = url_for("roles.show", name=role.name)
    return response


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(Permission.ROLES_READ)
@blp.response(200, RoleList)
def index() -> Any:
    """List all roles."""
    return {"items": services().roles.all()}


@blp.route("/", methods=["POST"], strict_slashes=False)
@requires(Permission.ROLES_MANAGE)
@blp.arguments(RoleCreation)
@blp.response(201, Role)
@blp.raises(
    RoleNameTaken,
    RoleCycle,
    PermissionEscalation,
    *IDEMPOTENCY_ERRORS,
)
@idempotent(_created)
def create(body: dict[str, Any], *, idempotency: Any) -> None:
    """Create a role. The caller must hold every permission that it grants."""
    services().role_editor.create(
        RoleDefinition(**body), actor=current_actor(), idempotency=idempotency
    )


@blp.route("/permissions", methods=["GET"])
@requires(Permission.ROLES_READ)
@blp.response(200, PermissionList)
def permissions() -> Any:
    """List all permissions."""
    named = {name for role in services().roles.all() for name in role.permissions}
    known = {str(permission): about for permission, about in DESCRIPTIONS.items()}
    others = {name: "" for name in named - known.keys()}
    return {
        "items": [
            {"name": name, "description": about} for name, about in sorted((known | others).items())
        ]
    }


@blp.route("/<name>", methods=["GET"])
@requires(Permission.ROLES_READ)
@blp.response(200, Role)
@blp.raises(RoleNotFound)
def show(name: str) -> Any:
    """Get a role."""
    return _role_response(services().roles.get(name))


@blp.route("/<name>", methods=["PUT"])
@requires(Permission.ROLES_MANAGE)
@blp.arguments(
    RoleUpdate,
    example={"description": "Looks after uploads.", "permissions": ["media:upload"]},
)
@blp.response(200, Role)
@blp.raises(RoleNotFound, BuiltinRole, RoleCycle, PermissionEscalation, InsufficientRank, Stale)
def replace(body: dict[str, Any], name: str) -> Any:
    """Change a role. Omitted fields keep their values.

    The change applies to the next request of every user with the role. The caller must hold every
    permission that the role grants before and after the change, and outrank every user who would
    lose a permission of this service, also through a role that inherits from this one.
    """
    role = services().role_editor.change(name, body, actor=current_actor(), if_match=if_match())
    return _role_response(role)


@blp.route("/<name>", methods=["DELETE"])
@requires(Permission.ROLES_MANAGE)
@blp.response(204)
@blp.raises(RoleNotFound, BuiltinRole, RoleInUse, PermissionEscalation, InsufficientRank, Stale)
def delete(name: str) -> None:
    """Delete a role that no user has and no role inherits from."""
    services().role_editor.delete(name, actor=current_actor(), if_match=if_match())
