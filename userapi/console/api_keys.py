"""Pages of API keys: those of the viewer, and those of service accounts.

The text of a new key is shown once, in the response to the form that created it.
"""

from typing import Any
from uuid import UUID

from flask import request
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.schemas.machines import ApiKeyCreation
from userapi.errors import ServiceError
from userapi.machines.key_creation import CreatedKey, NewApiKey
from userapi.machines.key_owners import KeyOwner, service_owner, user_owner
from userapi.permissions import Permission

from .access import requires, signed_in
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import local_time, read_form
from .one_time_forms import accepted_once
from .rendering import flash_success, page
from .service_accounts import values_of_account


@blp.route("/api-keys", methods=["GET"])
@signed_in
def keys_page() -> Response:
    """Show the viewer's API keys."""
    return page("api_keys.html", **_own_values())


@blp.route("/api-keys", methods=["POST"])
@signed_in
@accepted_once("keys_page")
def create_own_key() -> Response:
    """Create an API key for the signed-in user and show it."""
    try:
        created = _create(_own())
    except ServiceError as error:
        return page_with_errors(error, "api_keys.html", **_own_values())
    return page("api_keys.html", created=created, **_own_values())


@blp.route("/api-keys/<uuid:key_id>/rotate", methods=["POST"])
@signed_in
@accepted_once("keys_page")
def rotate_own_key(key_id: UUID) -> Response:
    """Replace an API key of the viewer and show the new one. The old one works for another day."""
    try:
        created = services().key_rotation.rotate(_own(), key_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "keys_page")
    return page("api_keys.html", created=created, **_own_values())


@blp.route("/api-keys/<uuid:key_id>/revoke", methods=["POST"])
@signed_in
def revoke_own_key(key_id: UUID) -> Response:
    """Revoke one of the viewer's API keys."""
    try:
        services().key_revocation.revoke(_own(), key_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "keys_page")
    return flash_success(gettext("The key was revoked."), "keys_page")


@blp.route("/service-accounts/<uuid:account_id>/api-keys", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
@accepted_once("service_account_page")
def create_service_key(account_id: UUID) -> Response:
    """Create an API key for a service account and show it."""
    try:
        created = _create(service_owner(account_id))
    except ServiceError as error:
        return page_with_errors(error, "service_account.html", **values_of_account(account_id))
    return page("service_account.html", created=created, **values_of_account(account_id))


@blp.route("/service-accounts/<uuid:account_id>/api-keys/<uuid:key_id>/rotate", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
@accepted_once("service_account_page")
def rotate_service_key(account_id: UUID, key_id: UUID) -> Response:
    """Replace an API key of a service account. The old one works for another day."""
    try:
        created = services().key_rotation.rotate(
            service_owner(account_id), key_id, actor=current_actor()
        )
    except ServiceError as error:
        return flash_error(error, "service_account_page", account_id=account_id)
    return page("service_account.html", created=created, **values_of_account(account_id))


@blp.route("/service-accounts/<uuid:account_id>/api-keys/<uuid:key_id>/revoke", methods=["POST"])
@requires(Permission.SERVICE_ACCOUNTS_MANAGE)
def revoke_service_key(account_id: UUID, key_id: UUID) -> Response:
    """Revoke an API key of a service account."""
    try:
        services().key_revocation.revoke(service_owner(account_id), key_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "service_account_page", account_id=account_id)
    return flash_success(
        gettext("The key was revoked."), "service_account_page", account_id=account_id
    )


def _own() -> KeyOwner:
    return user_owner(current_session().user_id)


def _own_values() -> dict[str, Any]:
    return {
        "keys": services().api_keys.list_of(_own()),
        "enabled": services().settings.feature_personal_api_keys,
    }


def _create(owner: KeyOwner) -> CreatedKey:
    """Create a key from the form. Empty fields limit nothing, and the end is the default one."""
    body = read_form(
        ApiKeyCreation,
        permissions=request.form.get("permissions", "").split() or None,
        allowed_networks=request.form.get("allowed_networks", "").split() or None,
        expires_at=local_time("expires_on", time_of_day="T23:59:59"),
    )
    if body.get("expires_at") is None:
        body.pop("expires_at", None)
    return services().key_creation.create(owner, NewApiKey(**body), actor=current_actor())
