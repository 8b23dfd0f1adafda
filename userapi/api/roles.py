"""Endpoints of roles: /api/v1/roles."""

from typing import Any

from userapi.permissions import DESCRIPTIONS, Permission
from userapi.roles.service import RoleNotFound

from .access import requires
from .blueprint import Blueprint
from .context import services
from .responses import json_response
from .schemas.roles import PermissionList, Role, RoleList

blp = Blueprint("roles", __name__, url_prefix="/api/v1/roles", description="Roles")

_role = Role()


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(Permission.ROLES_READ)
@blp.response(200, RoleList)
def index() -> Any:
    """List all roles."""
    return {"items": services().roles.all()}


@blp.route("/permissions", methods=["GET"])
@requires(Permission.ROLES_READ)
@blp.response(200, PermissionList)
def permissions() -> Any:
    """List the known permissions."""
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
    """Show a role."""
    role = services().roles.get(name)
    return json_response(_role, role, etag=str(role.version))
