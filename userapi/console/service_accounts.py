"""Pages of service accounts: the list, a form, and one account with its keys."""

from typing import Any
from uuid import UUID

from flask import flash, request
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.api.schemas.machines import (
    ServiceAccountCreation,
    ServiceAccountUpdate,
)
from userapi.api.schemas.users import OptionalReason
from userapi.errors import ServiceError
from userapi.infrastructure.pagination import InvalidCursor
from userapi.machines.account_creation import NewServiceAccount
from userapi.machines.account_search import ServiceAccountFilter
from userapi.machines.active_keys import KeyAttention
from userapi.machines.key_owners import service_owner
from userapi.machines.models import AccountStatus
from userapi.permissions import Permission

from .access import requires
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import read_form, read_query, typed_filters
from .list_preferences import NOT_FILTERS, values_of_list
from .list_queries import ServiceAccountsPageQuery
from .lists import position_of, requested_page
from .problem_texts import translated
from .rendering import flash_success, page, redirect_to


@blp.route("/service-accounts", methods=["GET"])
@requires(Permission.SERVICE_ACCOUNTS_READ)
def service_accounts_page() -> Response:
    """Show service accounts, with all filters of the API."""
    filters = typed_filters(ServiceAccountsPageQuery, exclude=NOT_FILTERS)
    values = values_of_list("service-accounts", filters) | {
        "statuses": [("", gettext("any")), *((s, translated(s)) for s in AccountStatus)],
        "role_names": [("", gettext("any")), *((name, name) for name in _role_names())],
        "attentions": [
            ("", gettext("any")),
            (KeyAttention.EXPIRING, gettext("expires within 14 days")),
            (KeyAttention.UNUSED, gettext("was never used")),
            (KeyAttention.ENDLESS, gettext("never expires")),
        ],
    }
    try:
        query = read_query(ServiceAccountsPageQuery, source=filters)
        found = services().service_account_search.page(
            ServiceAccountFilter(**{n: query[n] for n in query if n not in PAGE_FIELDS}),
            requested_page(page_size=values["page_size"], sort=filters.get("sort")),
        )
    except InvalidCursor:
        flash(gettext("This page of the list is out of date. This is the first page."), "info")
        return redirect_to("service_accounts_page", **filters)
    except ServiceError as error:
        return page_with_errors(error, "service_accounts.html", accounts=None, **values)
    total = found.total if found.total_is_exact else None
    return page(
        "service_accounts.html",
        accounts=found,
        total=total,
        position=position_of(found, total),
        **values,
    )


@blp.route("/service-accounts/new", methods=["GET"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def new_service_account_page() -> Response:
    """Show an empty form for a service account."""
    return page("new_service_account.html", roles=_role_names())


@blp.route("/service-accounts/new", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def create_service_account() -> Response:
    """Create a service account."""
    try:
        body = read_form(ServiceAccountCreation)
        account = services().service_account_creation.create(
            NewServiceAccount(**body), actor=current_actor()
        )
    except ServiceError as error:
        return page_with_errors(error, "new_service_account.html", roles=_role_names())
    return flash_success(
        gettext("The service account was created. Create a key for it."),
        "service_account_page",
        account_id=account.id,
    )


@blp.route("/service-accounts/<uuid:account_id>", methods=["GET"])
@requires(Permission.SERVICE_ACCOUNTS_READ)
def service_account_page(account_id: UUID) -> Response:
    """Show a service account and its keys."""
    return page("service_account.html", **values_of_account(account_id))


@blp.route("/service-accounts/<uuid:account_id>", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def change_service_account(account_id: UUID) -> Response:
    """Change a service account, unless it has changed since it was shown."""
    try:
        body = {"description": "", **read_form(ServiceAccountUpdate)}
        if Permission.ROLES_ASSIGN not in current_actor().permissions:
            body.pop("roles", None)
        services().service_account_editing.update(
            account_id,
            body,
            actor=current_actor(),
            if_match=request.args.getlist("version"),
        )
    except ServiceError as error:
        return page_with_errors(error, "service_account.html", **values_of_account(account_id))
    return flash_success(
        gettext("The service account was saved. It applies to the next request."),
        "service_account_page",
        account_id=account_id,
    )


@blp.route("/service-accounts/<uuid:account_id>/suspend", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def suspend_service_account(account_id: UUID) -> Response:
    """Reject the keys of a service account until it is activated."""
    try:
        services().service_account_suspension.suspend(
            account_id, actor=current_actor(), **read_form(OptionalReason)
        )
    except ServiceError as error:
        return flash_error(error, "service_account_page", account_id=account_id)
    return flash_success(
        gettext("The service account was suspended. Its keys are rejected."),
        "service_account_page",
        account_id=account_id,
    )


@blp.route("/service-accounts/<uuid:account_id>/activate", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def activate_service_account(account_id: UUID) -> Response:
    """Accept the keys of a suspended service account again."""
    try:
        services().service_account_suspension.activate(
            account_id, actor=current_actor(), **read_form(OptionalReason)
        )
    except ServiceError as error:
        return flash_error(error, "service_account_page", account_id=account_id)
    return flash_success(
        gettext("The service account was activated."), "service_account_page", account_id=account_id
    )


@blp.route("/service-accounts/<uuid:account_id>/delete", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def delete_service_account(account_id: UUID) -> Response:
    """Delete a service account with its keys."""
    try:
        services().service_account_deletion.delete(
            account_id, actor=current_actor(), if_match=request.args.getlist("version")
        )
    except ServiceError as error:
        return flash_error(error, "service_account_page", account_id=account_id)
    return flash_success(gettext("The service account was deleted."), "service_accounts_page")


def values_of_account(account_id: UUID) -> dict[str, Any]:
    """Return the values of the page of an account. Raises ServiceAccountNotFound."""
    return {
        "service": services().service_accounts.get(account_id),
        "keys": services().api_keys.list_of(service_owner(account_id)),
        "roles": _role_names(),
    }


def _role_names() -> list[str]:
    return sorted(services().roles.graph().names)
