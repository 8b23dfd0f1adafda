"""The roles of one user, and the permissions that they grant.

Roles that grant more than before are assigned only after a page has shown what they add.
"""

from collections.abc import Iterable
from itertools import groupby
from uuid import UUID

from flask import flash, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.schemas.users import RoleAssignment
from userapi.errors import ServiceError
from userapi.permissions import DESCRIPTIONS, Permission, PermissionSet
from userapi.roles.explanation import permission_chains

from .access import requires
from .blueprint import blp
from .errors import flash_error
from .forms import read_form
from .problem_texts import N_, translated
from .rendering import flash_success, page, redirect_to
from .user import shown

# What people call the part of a permission before the colon.
RESOURCES = {
    "*": N_("Everything"),
    "audit": N_("Audit log"),
    "roles": N_("Roles"),
    "service_accounts": N_("Service accounts"),
    "sessions": N_("Sessions"),
    "stats": N_("Statistics"),
    "system": N_("System"),
    "tokens": N_("Tokens"),
    "users": N_("Users"),
}


@blp.route("/users/<uuid:user_id>/roles", methods=["GET"])
@requires(Permission.USERS_READ)
def user_roles_page(user_id: UUID) -> Response:
    """Show the roles of a user, and each permission with the roles that grant it."""
    values = shown(user_id)
    chains = {item.permission: item.via for item in permission_chains(values["user"].roles)}
    roles, held = services().roles.all(), current_actor().permissions
    listed = [
        role
        for role in roles
        if role.name in values["user"].roles
        or held.covers(PermissionSet(role.effective_permissions))
    ]
    return page(
        "user_roles.html",
        roles=listed,
        beyond=[role.name for role in roles if role not in listed],
        chains=chains,
        groups=[(name, described(members)) for name, members in by_resource(chains)],
        **values,
    )


@blp.route("/users/<uuid:user_id>/roles", methods=["POST"])
@requires(Permission.ROLES_ASSIGN)
def set_roles(user_id: UUID) -> Response:
    """Replace the roles of a user by the selected ones, after a question if they grant more."""
    version = request.args.getlist("version")
    try:
        wanted = read_form(RoleAssignment)["roles"]
        values = shown(user_id)
        before = values["user"].roles
        graph = services().roles.graph()
        old, new = graph.effective(before), graph.effective(wanted)
        added = old.missing_from(new)
        if added and "confirmed" not in request.form:
            return page(
                "user_roles_question.html",
                wanted=wanted,
                added=described(added),
                removed=described(new.missing_from(old)),
                version=version,
                **values,
            )
        user = services().role_assignment.set_roles(
            user_id, wanted, actor=current_actor(), if_match=version
        )
    except ServiceError as error:
        return flash_error(error, "user_roles_page", user_id=user_id)
    text = gettext("The roles were saved. They apply to the next request.")
    if set(user.roles) == set(before):
        return flash_success(text, "user_roles_page", user_id=user_id)
    undo = {
        "text": text,
        "action": url_for("console.set_roles", user_id=user_id, version=user.etag),
        "fields": [("confirmed", "yes"), *(("roles", role) for role in before)],
    }
    flash(undo, "undo")  # type: ignore[arg-type]  # Messages are stored as JSON.
    return redirect_to("user_roles_page", user_id=user_id)


def described(permissions: Iterable[str]) -> list[tuple[str, str]]:
    """Return each permission with what it allows; permissions of other services have no text."""
    texts = {str(permission): translated(text) for permission, text in DESCRIPTIONS.items()}
    texts["*"] = gettext("Everything, in this service and in others.")
    return [(name, texts.get(name) or _wildcard_text(name)) for name in permissions]


def _wildcard_text(permission: str) -> str:
    resource, _, action = permission.partition(":")
    if action != "*":
        return ""
    return str(gettext("%(resource)s: everything.", resource=resource_name(resource)))


@blp.app_template_filter("resource_name")
def resource_name(resource: str) -> str:
    """Return what people call a resource; a resource of another service is unchanged."""
    name = RESOURCES.get(resource)
    return str(gettext(name)) if name else resource


def by_resource(permissions: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return sorted permissions grouped by the part before the colon."""
    groups = groupby(permissions, key=lambda permission: permission.partition(":")[0])
    return [(name, list(members)) for name, members in groups]
