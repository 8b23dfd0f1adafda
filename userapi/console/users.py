"""Pages of users: the list, bulk changes, and new users."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.wrappers import Response

from userapi.accounts.bulk import PERMISSIONS, WITH_A_ROLE, BulkAction
from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.api.schemas.transfers import ExportQuery
from userapi.api.schemas.users import BulkRequest, UserCreation, UserQuery
from userapi.api.users import new_user
from userapi.errors import ServiceError
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import Permission

from .access import requires, signed_in
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import day, read_form, read_query, typed_filters
from .granted import granted_beyond_base
from .rendering import flash_success, page
from .user_roles import described

USERS_PER_PAGE = "25"
LABELS = {
    BulkAction.SUSPEND: "Suspend",
    BulkAction.ACTIVATE: "Activate",
    BulkAction.UNLOCK: "Unlock",
    BulkAction.ASSIGN_ROLE: "Assign a role",
    BulkAction.REMOVE_ROLE: "Remove a role",
    BulkAction.DELETE: "Delete",
}


@blp.route("/users", methods=["GET"])
@requires(Permission.USERS_READ)
def users_page() -> Response:
    """Show users, with all filters of the API."""
    values: dict[str, Any] = {
        "filters": typed_filters(UserQuery, exclude=("page",)),
        "statuses": [("", "any"), *((status, status) for status in UserStatus)],
        "roles": sorted(services().roles.graph().names),
        "actions": [(a, text) for a, text in LABELS.items() if _may(a)],
    }
    try:
        query = read_query(UserQuery, **_converted())
        part = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
        users = services().user_search.page(UserFilter(**query), PageRequest(**part))
    except ServiceError as error:
        return page_with_errors(error, "users.html", users=None, **values)
    return page("users.html", users=users, **values)


@blp.route("/users/export", methods=["GET"])
@requires(Permission.USERS_EXPORT)
def export_users() -> Response:
    """Download the users that match the filters of the page."""
    query = read_query(ExportQuery, **{k: v for k, v in _converted().items() if k != "page_size"})
    form = query.pop("format")
    del query["bom"]  # Downloads from the console are opened in spreadsheets.
    pieces = services().user_exports.pieces(UserFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="users", now=services().clock.now(), bom=True)


@blp.route("/users/new", methods=["GET"])
@requires(Permission.USERS_CREATE)
def new_user_page() -> Response:
    """Show an empty form for a user."""
    return page("new_user.html", roles=sorted(services().roles.graph().names))


@blp.route("/users/new", methods=["POST"])
@requires(Permission.USERS_CREATE)
def create_user() -> Response:
    """Create a user, after a question if the roles grant more than those of every user.

    Without a password, the user is invited by mail.
    """
    try:
        body = read_form(UserCreation)
        added = granted_beyond_base(body.get("roles", ()))
        if added and "confirmed" not in request.form:
            return page(
                "new_user.html",
                roles=sorted(services().roles.graph().names),
                form=request.form,
                added=described(added),
            )
        user = services().account_creation.create(new_user(body), actor=current_actor())
    except ServiceError as error:
        return page_with_errors(
            error, "new_user.html", roles=sorted(services().roles.graph().names)
        )
    outcome = "was created" if "password" in body else "was invited by mail"
    return flash_success(f"{user.username} {outcome}.", "user_page", user_id=user.id)


@blp.route("/users/bulk", methods=["POST"])
@signed_in
def confirm_bulk() -> Response:
    """Show the selected users and ask for confirmation. Changes nothing."""
    try:
        body = read_form(BulkRequest)
        current_actor().require(PERMISSIONS[body["action"]])
    except ServiceError as error:
        return flash_error(error, "users_page")
    return page(
        "bulk.html",
        action=body["action"],
        label=LABELS[body["action"]],
        role=body.get("role") if body["action"] in WITH_A_ROLE else None,
        users=_named(body["user_ids"]),
    )


@blp.route("/users/bulk/run", methods=["POST"])
@signed_in
def run_bulk() -> Response:
    """Apply the action to each user, and show the result for each."""
    try:
        body = read_form(BulkRequest)
        names = dict(_named(body["user_ids"]))
        results = services().bulk.run(**body, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "users_page")
    return page(
        "bulk_results.html",
        label=LABELS[body["action"]],
        results=[(names[result.id], result) for result in results],
        failed=sum(result.code is not None for result in results),
    )


def _may(action: BulkAction) -> bool:
    return PERMISSIONS[action] in current_actor().permissions


def _named(user_ids: Sequence[UUID]) -> list[tuple[UUID, str]]:
    """Return each id with the user name, or with the id for a deleted user."""
    names = services().user_search.names(user_ids)
    return [(user_id, names.get(user_id, str(user_id))) for user_id in user_ids]


def _converted() -> dict[str, Any]:
    """Return the filters of the page in the form of the API."""
    return {
        "page_size": request.args.get("page_size") or USERS_PER_PAGE,
        "created_after": day("created_after"),
        "created_before": day("created_before", after=1),
        "last_login_after": day("last_login_after"),
        "last_login_before": day("last_login_before", after=1),
    }
