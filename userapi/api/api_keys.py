"""Endpoints of API keys: of the signed-in user, of service accounts, and for administrators."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from flask import Response

from userapi.accounts.errors import SelfActionRefused, UserNotFound
from userapi.accounts.views import as_json_text
from userapi.machines.errors import (
    ApiKeyNotFound,
    KeyAlreadyRotated,
    KeyLimitReached,
    KeyNotActive,
    PersonalKeysDisabled,
    ServiceAccountNotFound,
)
from userapi.machines.key_creation import CreatedKey, NewApiKey
from userapi.machines.key_owners import KeyOwner, service_owner, user_owner
from userapi.machines.key_rotation import DEFAULT_OVERLAP
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank, PermissionEscalation

from . import users
from .access import requires, signed_in
from .blueprint import Blueprint
from .context import current_actor, current_session, services
from .credentials import Credentials
from .idempotency import IDEMPOTENCY_ERRORS, idempotent
from .responses import as_json
from .schemas.common import Revoked
from .schemas.machines import (
    ApiKey,
    ApiKeyCreation,
    ApiKeyList,
    ApiKeyQuery,
    ApiKeyRotation,
    ApiKeyUpdate,
    CreatedApiKey,
)
from .service_accounts import MANAGE, READ
from .service_accounts import blp as service_accounts

OF_SERVICE = "/<uuid:account_id>/api-keys"
OF_USER = "/<uuid:user_id>/api-keys"
OWN = "/me/api-keys"

CREATION = (PersonalKeysDisabled, PermissionEscalation, KeyLimitReached, *IDEMPOTENCY_ERRORS)
ROTATION = (
    ApiKeyNotFound,
    PersonalKeysDisabled,
    KeyAlreadyRotated,
    KeyNotActive,
    KeyLimitReached,
    *IDEMPOTENCY_ERRORS,
)
OF_SERVICE_ERRORS = (ServiceAccountNotFound, SelfActionRefused, InsufficientRank)


def _created(created: CreatedKey) -> Response:
    members = orjson.loads(as_json_text(created.view))
    return as_json({**members, "key": created.text}, 201)


def _own() -> KeyOwner:
    return user_owner(current_session().user_id)


def _list(owner: KeyOwner, query: dict[str, Any]) -> Any:
    return as_json({"items": services().api_keys.list_of(owner, status=query.get("status"))})


def _list_existing(owner: KeyOwner, query: dict[str, Any]) -> Any:
    services().key_owners.require(owner)
    return _list(owner, query)


def _create(owner: KeyOwner, body: dict[str, Any], idempotency: Any) -> None:
    services().key_creation.create(
        owner, NewApiKey(**body), actor=current_actor(), idempotency=idempotency
    )


def _update(owner: KeyOwner, key_id: UUID, body: dict[str, Any]) -> Any:
    return as_json(services().key_editing.update(owner, key_id, body, actor=current_actor()))


def _rotate(owner: KeyOwner, key_id: UUID, body: dict[str, Any], idempotency: Any) -> None:
    seconds = body.pop("overlap_seconds", None)
    overlap = DEFAULT_OVERLAP if seconds is None else timedelta(seconds=seconds)
    services().key_rotation.rotate(
        owner, key_id, actor=current_actor(), overlap=overlap, idempotency=idempotency, **body
    )


def _revoke(owner: KeyOwner, key_id: UUID) -> None:
    services().key_revocation.revoke(owner, key_id, actor=current_actor())


def _revoke_all(owner: KeyOwner) -> Any:
    return {"revoked": services().key_revocation.revoke_all(owner, actor=current_actor())}


def _blueprint(name: str, url_prefix: str, description: str) -> Blueprint:
    return Blueprint(name, __name__, url_prefix=url_prefix, description=description)


own_keys = _blueprint("own_keys", users.blp.url_prefix, "The API keys of the signed-in user.")
service_keys = _blueprint(
    "service_keys", service_accounts.url_prefix, "The API keys of service accounts."
)
user_keys = _blueprint("user_keys", users.blp.url_prefix, "The API keys of other users.")


# The keys of the signed-in user


@own_keys.route(f"{OWN}/", methods=["GET"], strict_slashes=False)
@signed_in
@own_keys.arguments(ApiKeyQuery, location="query")
@own_keys.response(200, ApiKeyList)
def list_own(query: dict[str, Any]) -> Any:
    """List the API keys of the signed-in user, newest first."""
    return _list(_own(), query)


@own_keys.route(f"{OWN}/", methods=["POST"], strict_slashes=False)
@signed_in
@own_keys.arguments(ApiKeyCreation)
@own_keys.response(201, CreatedApiKey)
@own_keys.raises(*CREATION)
@idempotent(_created, secret=True)
def create_own(body: dict[str, Any], *, idempotency: Any) -> None:
    """Create an API key for the signed-in user. `key` is shown only in this response."""
    _create(_own(), body, idempotency)


@own_keys.route(f"{OWN}/", methods=["DELETE"], strict_slashes=False)
@signed_in
@own_keys.response(200, Revoked)
def revoke_own() -> Any:
    """Revoke every API key of the signed-in user."""
    return _revoke_all(_own())


@own_keys.route(f"{OWN}/<uuid:key_id>", methods=["GET"])
@signed_in
@own_keys.response(200, ApiKey)
@own_keys.raises(ApiKeyNotFound)
def show_own(key_id: UUID) -> Any:
    """Get an API key of the signed-in user."""
    return as_json(services().api_keys.get(_own(), key_id))


@own_keys.route(f"{OWN}/<uuid:key_id>", methods=["PATCH"])
@signed_in
@own_keys.arguments(ApiKeyUpdate)
@own_keys.response(200, ApiKey)
@own_keys.raises(ApiKeyNotFound, KeyNotActive, PermissionEscalation)
def update_own(body: dict[str, Any], key_id: UUID) -> Any:
    """Change an API key of the signed-in user. Omitted fields keep their values."""
    return _update(_own(), key_id, body)


@own_keys.route(f"{OWN}/<uuid:key_id>", methods=["DELETE"])
@signed_in
@own_keys.response(204)
@own_keys.raises(ApiKeyNotFound)
def revoke_one_own(key_id: UUID) -> None:
    """Revoke an API key of the signed-in user. Can be repeated."""
    _revoke(_own(), key_id)


@own_keys.route(f"{OWN}/<uuid:key_id>/rotate", methods=["POST"])
@signed_in
@own_keys.arguments(ApiKeyRotation, required=False)
@own_keys.response(201, CreatedApiKey)
@own_keys.raises(*ROTATION)
@idempotent(_created, secret=True)
def rotate_own(body: dict[str, Any], key_id: UUID, *, idempotency: Any) -> None:
    """Replace an API key of the signed-in user. The old one works until the overlap ends."""
    _rotate(_own(), key_id, body, idempotency)


# The keys of service accounts


@service_keys.route(f"{OF_SERVICE}/", methods=["GET"], strict_slashes=False)
@requires(READ)
@service_keys.arguments(ApiKeyQuery, location="query")
@service_keys.response(200, ApiKeyList)
@service_keys.raises(ServiceAccountNotFound)
def list_of_service(query: dict[str, Any], account_id: UUID) -> Any:
    """List the API keys of a service account, newest first."""
    return _list_existing(service_owner(account_id), query)


@service_keys.route(f"{OF_SERVICE}/", methods=["POST"], strict_slashes=False)
@requires(MANAGE, credentials=Credentials.NAMED)
@service_keys.arguments(ApiKeyCreation)
@service_keys.response(201, CreatedApiKey)
@service_keys.raises(*OF_SERVICE_ERRORS, PermissionEscalation, KeyLimitReached, *IDEMPOTENCY_ERRORS)
@idempotent(_created, secret=True)
def create_of_service(body: dict[str, Any], account_id: UUID, *, idempotency: Any) -> None:
    """Create an API key for a service account. `key` is shown only in this response."""
    _create(service_owner(account_id), body, idempotency)


@service_keys.route(f"{OF_SERVICE}/", methods=["DELETE"], strict_slashes=False)
@requires(MANAGE, credentials=Credentials.NAMED)
@service_keys.response(200, Revoked)
@service_keys.raises(*OF_SERVICE_ERRORS)
def revoke_of_service(account_id: UUID) -> Any:
    """Revoke every API key of a service account."""
    return _revoke_all(service_owner(account_id))


@service_keys.route(f"{OF_SERVICE}/<uuid:key_id>", methods=["GET"])
@requires(READ)
@service_keys.response(200, ApiKey)
@service_keys.raises(ServiceAccountNotFound, ApiKeyNotFound)
def show_of_service(account_id: UUID, key_id: UUID) -> Any:
    """Get an API key of a service account."""
    return as_json(services().api_keys.get(service_owner(account_id), key_id))


@service_keys.route(f"{OF_SERVICE}/<uuid:key_id>", methods=["PATCH"])
@requires(MANAGE, credentials=Credentials.NAMED)
@service_keys.arguments(ApiKeyUpdate)
@service_keys.response(200, ApiKey)
@service_keys.raises(*OF_SERVICE_ERRORS, ApiKeyNotFound, KeyNotActive, PermissionEscalation)
def update_of_service(body: dict[str, Any], account_id: UUID, key_id: UUID) -> Any:
    """Change an API key of a service account. Omitted fields keep their values."""
    return _update(service_owner(account_id), key_id, body)


@service_keys.route(f"{OF_SERVICE}/<uuid:key_id>", methods=["DELETE"])
@requires(MANAGE, credentials=Credentials.NAMED)
@service_keys.response(204)
@service_keys.raises(*OF_SERVICE_ERRORS, ApiKeyNotFound)
def revoke_one_of_service(account_id: UUID, key_id: UUID) -> None:
    """Revoke an API key of a service account. Can be repeated."""
    _revoke(service_owner(account_id), key_id)


@service_keys.route(f"{OF_SERVICE}/<uuid:key_id>/rotate", methods=["POST"])
@requires(MANAGE, credentials=Credentials.NAMED)
@service_keys.arguments(ApiKeyRotation, required=False)
@service_keys.response(201, CreatedApiKey)
@service_keys.raises(*OF_SERVICE_ERRORS, *(e for e in ROTATION if e is not PersonalKeysDisabled))
@idempotent(_created, secret=True)
def rotate_of_service(
    body: dict[str, Any], account_id: UUID, key_id: UUID, *, idempotency: Any
) -> None:
    """Replace an API key of a service account. The old one works until the overlap ends."""
    _rotate(service_owner(account_id), key_id, body, idempotency)


# The keys of other users


@user_keys.route(f"{OF_USER}/", methods=["GET"], strict_slashes=False)
@requires(Permission.SESSIONS_READ)
@user_keys.arguments(ApiKeyQuery, location="query")
@user_keys.response(200, ApiKeyList)
@user_keys.raises(UserNotFound)
def list_of_user(query: dict[str, Any], user_id: UUID) -> Any:
    """List the API keys of a user, newest first."""
    return _list_existing(user_owner(user_id), query)


@user_keys.route(f"{OF_USER}/", methods=["DELETE"], strict_slashes=False)
@requires(Permission.SESSIONS_REVOKE)
@user_keys.response(200, Revoked)
@user_keys.raises(UserNotFound, InsufficientRank)
def revoke_of_user(user_id: UUID) -> Any:
    """Revoke every API key of a user."""
    return _revoke_all(user_owner(user_id))


@user_keys.route(f"{OF_USER}/<uuid:key_id>", methods=["DELETE"])
@requires(Permission.SESSIONS_REVOKE)
@user_keys.response(204)
@user_keys.raises(UserNotFound, InsufficientRank, ApiKeyNotFound)
def revoke_one_of_user(user_id: UUID, key_id: UUID) -> None:
    """Revoke an API key of a user. Can be repeated."""
    _revoke(user_owner(user_id), key_id)
