"""Endpoints of service accounts: /api/v1/service-accounts."""

from typing import Any
from uuid import UUID

from flask import Response, url_for

from userapi.accounts.errors import InvalidStatusTransition, SelfActionRefused
from userapi.errors import Stale
from userapi.infrastructure.pagination import InvalidCursor, PageRequest, PageTooDeep
from userapi.machines.account_creation import NewServiceAccount
from userapi.machines.account_search import ServiceAccountFilter
from userapi.machines.errors import ServiceAccountNameTaken, ServiceAccountNotFound
from userapi.machines.views import AccountView
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank, PermissionEscalation
from userapi.roles.explanation import permission_chains

from .access import requires
from .blueprint import Blueprint
from .context import current_actor, services
from .credentials import Credentials
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import as_json, if_match
from .schemas.audit import AuditPage
from .schemas.common import PAGE_FIELDS, PageQuery
from .schemas.machines import (
    ServiceAccount,
    ServiceAccountCreation,
    ServiceAccountPage,
    ServiceAccountQuery,
    ServiceAccountUpdate,
)
from .schemas.users import ExplainedPermissions, OptionalReason

blp = Blueprint(
    "service_accounts",
    __name__,
    url_prefix="/api/v1/service-accounts",
    description="Identities of programs, and their API keys.",
)

READ, MANAGE = Permission.SERVICE_ACCOUNTS_READ, Permission.SERVICE_ACCOUNTS_MANAGE


def account_response(account: AccountView, status: int = 200) -> Response:
    """Return a service account, with the entity tag for `If-Match`."""
    return as_json(account, status, etag=account.etag)


def _created(account: AccountView) -> Response:
    response = account_response(account, 201)
    response.headers["Location"] = url_for("service_accounts.show", account_id=account.id)
    return response


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(READ)
@blp.arguments(ServiceAccountQuery, location="query")
@blp.response(200, ServiceAccountPage)
@blp.raises(InvalidCursor, PageTooDeep)
def index(query: dict[str, Any]) -> Any:
    """List service accounts. All filters can be combined."""
    page = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
    wanted = ServiceAccountFilter(**query)
    return as_json(services().service_account_search.page(wanted, PageRequest(**page)))


@blp.route("/", methods=["POST"], strict_slashes=False)
@requires(MANAGE, credentials=Credentials.NAMED)
@blp.arguments(ServiceAccountCreation)
@blp.response(201, ServiceAccount)
@blp.raises(ServiceAccountNameTaken, PermissionEscalation, *IDEMPOTENCY_ERRORS)
@idempotent(_created)
def create(body: dict[str, Any], *, idempotency: Any) -> None:
    """Create a service account. `roles` also needs `roles:assign`."""
    services().service_account_creation.create(
        NewServiceAccount(**body), actor=current_actor(), idempotency=idempotency
    )


@blp.route("/<uuid:account_id>", methods=["GET"])
@requires(READ)
@blp.response(200, ServiceAccount)
@blp.raises(ServiceAccountNotFound)
def show(account_id: UUID) -> Any:
    """Get a service account."""
    return account_response(services().service_accounts.get(account_id))


@blp.route("/<uuid:account_id>", methods=["PUT"], endpoint="replace")
@blp.route("/<uuid:account_id>", methods=["PATCH"])
@requires(MANAGE, credentials=Credentials.NAMED)
@blp.arguments(ServiceAccountUpdate)
@blp.response(200, ServiceAccount)
@blp.raises(
    ServiceAccountNotFound,
    ServiceAccountNameTaken,
    SelfActionRefused,
    InsufficientRank,
    PermissionEscalation,
    Stale,
)
def update(body: dict[str, Any], account_id: UUID) -> Any:
    """Change a service account. Omitted fields keep their values; `roles` needs `roles:assign`."""
    account = services().service_account_editing.update(
        account_id, body, actor=current_actor(), if_match=if_match()
    )
    return account_response(account)


@blp.route("/<uuid:account_id>", methods=["DELETE"])
@requires(MANAGE, credentials=Credentials.NAMED)
@blp.response(204)
@blp.raises(ServiceAccountNotFound, SelfActionRefused, InsufficientRank, Stale)
def delete(account_id: UUID) -> None:
    """Delete a service account with its keys and tokens. Audit rows stay."""
    services().service_account_deletion.delete(
        account_id, actor=current_actor(), if_match=if_match()
    )


@blp.route("/<uuid:account_id>/suspend", methods=["POST"])
@requires(MANAGE, credentials=Credentials.NAMED)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, ServiceAccount)
@blp.raises(ServiceAccountNotFound, SelfActionRefused, InsufficientRank, InvalidStatusTransition)
def suspend(body: dict[str, Any], account_id: UUID) -> Any:
    """Suspend a service account.

    Its keys are rejected until it is activated, its client tokens permanently.
    """
    account = services().service_account_suspension.suspend(
        account_id, actor=current_actor(), reason=body.get("reason")
    )
    return account_response(account)


@blp.route("/<uuid:account_id>/activate", methods=["POST"])
@requires(MANAGE, credentials=Credentials.NAMED)
@blp.arguments(OptionalReason, required=False)
@blp.response(200, ServiceAccount)
@blp.raises(ServiceAccountNotFound, SelfActionRefused, InsufficientRank, InvalidStatusTransition)
def activate(body: dict[str, Any], account_id: UUID) -> Any:
    """Accept the keys of a suspended service account again."""
    account = services().service_account_suspension.activate(
        account_id, actor=current_actor(), reason=body.get("reason")
    )
    return account_response(account)


@blp.route("/<uuid:account_id>/permissions", methods=["GET"])
@requires(READ)
@blp.response(200, ExplainedPermissions)
@blp.raises(ServiceAccountNotFound)
def permissions(account_id: UUID) -> Any:
    """Get the permissions of a service account, and the roles that grant them."""
    account = services().service_accounts.get(account_id)
    return {"items": permission_chains(account.roles)}


@blp.route("/<uuid:account_id>/activity", methods=["GET"])
@requires(Permission.AUDIT_READ)
@blp.arguments(PageQuery, location="query")
@blp.response(200, AuditPage)
@blp.raises(InvalidCursor, PageTooDeep, ServiceAccountNotFound)
def activity(query: dict[str, Any], account_id: UUID) -> Any:
    """List the audit entries by or about a service account, newest first.

    The entries of a deleted service account remain.
    """
    found = services().audit_reader.activity(
        account_id, PageRequest(**query), actor=current_actor(), target_type="service_account"
    )
    if not found.total:
        services().service_accounts.get(account_id)
    return found
