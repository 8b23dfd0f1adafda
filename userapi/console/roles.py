"""Pages of roles: the list, the inheritance, and an editor."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from flask import request
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.accounts.search import UserFilter
from userapi.api.context import current_actor, services
from userapi.api.schemas.roles import RoleCreation, RoleUpdate
from userapi.errors import ServiceError
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import DESCRIPTIONS, Permission
from userapi.roles.definitions import RoleDefinition

from .access import requires
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import read_form, read_query, typed_filters
from .list_preferences import values_of_list
from .list_queries import RolesPageQuery
from .rendering import flash_success, page
from .role_picture import draw, relatives
from .role_question import consequences
from .user_roles import by_resource, described

HOLDERS_SHOWN = 10


@blp.route("/roles", methods=["GET"])
@requires(Permission.ROLES_READ)
def roles_page() -> Response:
    """Show all roles, in the chosen order, and their inheritance as a diagram."""
    filters = typed_filters(RolesPageQuery)
    values = values_of_list("roles", filters)
    roles = services().roles.all()
    picture = draw(roles)
    try:
        order = read_query(RolesPageQuery).get("sort", "name")
    except ServiceError as error:
        return page_with_errors(error, "roles.html", roles=roles, picture=picture, **values)
    ordered = sorted(roles, key=attrgetter(order.removeprefix("-")), reverse=order.startswith("-"))
    return page("roles.html", roles=ordered, picture=picture, **values)


@blp.route("/roles/new", methods=["GET"])
@requires(Permission.ROLES_MANAGE)
def new_role_page() -> Response:
    """Show an empty form for a role."""
    return page("role.html", **_values_of(None))


@blp.route("/roles/new", methods=["POST"])
@requires(Permission.ROLES_MANAGE)
def create_role() -> Response:
    """Create a role."""
    try:
        body = read_form(RoleCreation, permissions=_typed_permissions())
        role = services().role_editor.create(
            RoleDefinition(**_with_description(body)), actor=current_actor()
        )
    except ServiceError as error:
        return page_with_errors(error, "role.html", **_values_of(None))
    return flash_success(
        gettext("The role %(name)s was created.", name=role.name), "role_page", name=role.name
    )


@blp.route("/roles/<name>", methods=["GET"])
@requires(Permission.ROLES_READ)
def role_page(name: str) -> Response:
    """Show one role. Roles that are not built in can be changed here."""
    return page("role.html", **_values_of(name))


@blp.route("/roles/<name>", methods=["POST"])
@requires(Permission.ROLES_MANAGE)
def change_role(name: str) -> Response:
    """Change a role, after a question if its users gain or lose permissions.

    A role that has changed since it was shown is not changed.
    """
    try:
        body = read_form(RoleUpdate, permissions=_typed_permissions())
        question = consequences(services().roles.get(name), body)
        if question and "confirmed" not in request.form:
            return page("role_question.html", name=name, question=question, described=described)
        services().role_editor.change(
            name,
            _with_description(body),
            actor=current_actor(),
            if_match=request.args.getlist("version"),
        )
    except ServiceError as error:
        return page_with_errors(error, "role.html", **_values_of(name))
    return flash_success(
        gettext("The role was saved. It applies to the next request."), "role_page", name=name
    )


@blp.route("/roles/<name>/delete", methods=["POST"])
@requires(Permission.ROLES_MANAGE)
def delete_role(name: str) -> Response:
    """Delete a role that no user has."""
    try:
        services().role_editor.delete(
            name, actor=current_actor(), if_match=request.args.getlist("version")
        )
    except ServiceError as error:
        return flash_error(error, "role_page", name=name)
    return flash_success(gettext("The role %(name)s was deleted.", name=name), "roles_page")


def _typed_permissions() -> list[str]:
    """Return the selected permissions, and the typed ones of other services."""
    return [*request.form.getlist("permissions"), *request.form.get("others", "").split()]


def _with_description(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with a description, which forms omit if it is empty."""
    return {"description": "", **body}


def _values_of(name: str | None) -> dict[str, Any]:
    """Return the values of the page: the role, and all roles and permissions to choose from."""
    roles = services().roles.all()
    holders = None
    if name and Permission.USERS_READ in current_actor().permissions:
        part = PageRequest(page_size=HOLDERS_SHOWN)
        holders = services().user_search.page(UserFilter(role=name), part).items
    return {
        "role": services().roles.get(name) if name else None,
        "holders": holders,
        "roles": roles,
        "picture": draw(relatives(name, roles)) if name else None,
        "known": {str(permission): about for permission, about in DESCRIPTIONS.items()},
        "described": described,
        "by_resource": by_resource,
        "heirs": [role.name for role in roles if name in role.parents],
    }
