"""Preferences of lists: columns and page size in the browser, filters in the account."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import request
from flask_babel import gettext
from marshmallow import Schema
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.schemas.fields import Text
from userapi.api.schemas.requests import StrictSchema
from userapi.api.schemas.users import UserQuery
from userapi.errors import ServiceError
from userapi.permissions import Permission

from .access import signed_in
from .blueprint import blp
from .errors import flash_error
from .forms import read_form
from .list_queries import (
    AuditPageQuery,
    BulkJobsPageQuery,
    ImportsPageQuery,
    RolesPageQuery,
    ServiceAccountsPageQuery,
)
from .lists import (
    PAGE_SIZE_COOKIE,
    PAGE_SIZES,
    as_query,
    carried_in_links,
    filters_in_form,
    prefer,
    preferred_columns,
    preferred_page_size,
)
from .problem_texts import N_
from .rendering import flash_success, redirect_to
from .session_filters import (
    DEFAULT_SESSION_COLUMNS,
    SESSION_COLUMNS,
    SessionsPageQuery,
    UserSessionsPageQuery,
)

USER_COLUMNS = {
    "email": N_("E-mail"),
    "status": N_("Status"),
    "roles": N_("Roles"),
    "last_login_at": N_("Last log-in"),
    "created_at": N_("Created"),
    "updated_at": N_("Changed"),
    "mfa": N_("Second factor"),
    "phone": N_("Telephone"),
    "locale": N_("Language"),
    "id": N_("Id"),
}
DEFAULT_USER_COLUMNS = ("email", "status", "roles", "last_login_at", "created_at")
ACCOUNT_COLUMNS = {
    "status": N_("Status"),
    "roles": N_("Roles"),
    "key_count": N_("Active keys"),
    "last_used_at": N_("Last used"),
    "created_at": N_("Created"),
    "updated_at": N_("Changed"),
    "client_id": N_("Client id"),
}
DEFAULT_ACCOUNT_COLUMNS = ("status", "roles", "key_count", "last_used_at")
ROLE_COLUMNS = {
    "description": N_("Description"),
    "parents": N_("Inherits from"),
    "permissions": N_("Own permissions"),
    "user_count": N_("Users"),
    "service_account_count": N_("Service accounts"),
}
DEFAULT_ROLE_COLUMNS = ("description", "parents", "permissions", "user_count")
JOB_COLUMNS = {
    "state": N_("State"),
    "size": N_("Progress"),
    "failed": N_("Failed"),
    "created_by": N_("By"),
    "finished_at": N_("Finished"),
}
DEFAULT_JOB_COLUMNS = ("state", "size", "failed", "created_by")
# Stored if every column is hidden: a cookie without a value is no preference.
NO_COLUMNS = "none"
NOT_FILTERS = ("page", "page_size", "cursor")


@dataclass(frozen=True, slots=True)
class FilteredList:
    """A list with filters: its page, its filters, and who may see it.

    Without `permission`, everybody sees their part of the list. Viewers choose among `columns`; a
    list without them always shows all. Required fields of `schema` are part of the page's address.
    """

    endpoint: str
    schema: type[Schema]
    permission: Permission | None
    columns: Mapping[str, str] = field(default_factory=dict)
    default_columns: Collection[str] = ()
    columns_cookie: str = ""
    can_save_filters: bool = True


LISTS: Mapping[str, FilteredList] = {
    "users": FilteredList(
        "users_page",
        UserQuery,
        Permission.USERS_READ,
        USER_COLUMNS,
        DEFAULT_USER_COLUMNS,
        "console-user-columns",
    ),
    "roles": FilteredList(
        "roles_page",
        RolesPageQuery,
        Permission.ROLES_READ,
        ROLE_COLUMNS,
        DEFAULT_ROLE_COLUMNS,
        "console-role-columns",
    ),
    "service-accounts": FilteredList(
        "service_accounts_page",
        ServiceAccountsPageQuery,
        Permission.SERVICE_ACCOUNTS_READ,
        ACCOUNT_COLUMNS,
        DEFAULT_ACCOUNT_COLUMNS,
        "console-account-columns",
    ),
    "audit": FilteredList("audit_page", AuditPageQuery, Permission.AUDIT_READ),
    "bulk-jobs": FilteredList(
        "bulk_jobs_page",
        BulkJobsPageQuery,
        None,
        JOB_COLUMNS,
        DEFAULT_JOB_COLUMNS,
        "console-job-columns",
    ),
    "imports": FilteredList(
        "imports_page",
        ImportsPageQuery,
        Permission.USERS_IMPORT,
        JOB_COLUMNS,
        DEFAULT_JOB_COLUMNS,
        "console-job-columns",
    ),
    "sessions": FilteredList(
        "sessions_page",
        SessionsPageQuery,
        None,
        SESSION_COLUMNS,
        DEFAULT_SESSION_COLUMNS,
        "console-session-columns",
        can_save_filters=False,
    ),
    "user-sessions": FilteredList(
        "user_security_page",
        UserSessionsPageQuery,
        Permission.SESSIONS_READ,
        SESSION_COLUMNS,
        DEFAULT_SESSION_COLUMNS,
        "console-session-columns",
        can_save_filters=False,
    ),
}


def values_of_list(list_name: str, filters: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page of a list shows of its filters and of the viewer's preferences."""
    shown, page_size = LISTS[list_name], preferred_page_size()
    saved = (
        services().saved_filters.of(current_session().user_id, list_name)
        if shown.can_save_filters
        else []
    )
    return {
        "filters": filters,
        "carried": carried_in_links(filters, page_size),
        "filter_query": as_query(filters),
        "page_size": page_size,
        "page_sizes": PAGE_SIZES,
        "columns": preferred_columns(shown.columns_cookie, shown.columns, shown.default_columns),
        "all_columns": shown.columns,
        "saved": saved,
    }


class FilterName(StrictSchema):
    """The name of a saved filter."""

    name = Text(required=True, max_length=50)


@blp.route("/lists/<list_name>/view", methods=["POST"])
@signed_in
def change_view(list_name: str) -> Response:
    """Store in this browser which columns it shows and how many rows per page."""
    wanted = _list(list_name)
    filters = _filters_of(wanted)
    response = redirect_to(wanted.endpoint, **filters)
    if request.form.get("page_size", "") in map(str, PAGE_SIZES):
        prefer(response, PAGE_SIZE_COOKIE, request.form["page_size"])
    if wanted.columns:
        chosen = [name for name in wanted.columns if name in request.form.getlist("columns")]
        prefer(response, wanted.columns_cookie, ".".join(chosen) or NO_COLUMNS)
    return response


@blp.route("/lists/<list_name>/filters", methods=["POST"])
@signed_in
def save_filters(list_name: str) -> Response:
    """Save the filters of a list under a name."""
    wanted = _list(list_name)
    if not wanted.can_save_filters:
        raise NotFound()
    filters = filters_in_form(wanted.schema, exclude=NOT_FILTERS)
    try:
        name = read_form(FilterName)["name"]
        services().saved_filters.save(current_session().user_id, list_name, name, filters)
    except ServiceError as error:
        return flash_error(error, wanted.endpoint, **filters)
    return flash_success(
        gettext("The filter “%(name)s” was saved.", name=name), wanted.endpoint, **filters
    )


@blp.route("/lists/<list_name>/filters/delete", methods=["POST"])
@signed_in
def delete_filters(list_name: str) -> Response:
    """Delete saved filters of a list."""
    wanted = _list(list_name)
    name = request.form.get("name", "")[:50]
    services().saved_filters.delete(current_session().user_id, list_name, name)
    filters: dict[str, Any] = filters_in_form(wanted.schema, exclude=NOT_FILTERS)
    return flash_success(
        gettext("The filter “%(name)s” was deleted.", name=name), wanted.endpoint, **filters
    )


def _list(list_name: str) -> FilteredList:
    """Return a list that the actor may see. Raises NotFound, PermissionDenied."""
    if list_name not in LISTS:
        raise NotFound()
    permission = LISTS[list_name].permission
    if permission is not None:
        current_actor().require(permission)
    return LISTS[list_name]


def _filters_of(wanted: FilteredList) -> dict[str, str]:
    """Return the filters of a form. Raises NotFound if the page has no address without others."""
    filters = filters_in_form(wanted.schema, exclude=NOT_FILTERS)
    required = [name for name, each in wanted.schema().fields.items() if each.required]
    if wanted.schema(only=required).validate({name: filters.get(name) for name in required}):
        raise NotFound()
    return filters
