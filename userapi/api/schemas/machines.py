"""Schemas of service accounts and API keys."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from userapi.api.context import current_actor, services
from userapi.errors import require_all
from userapi.machines.key_editing import require_valid_changes
from userapi.machines.key_rotation import DEFAULT_OVERLAP, MAX_OVERLAP
from userapi.machines.models import AccountStatus, KeyStatus, OwnerType
from userapi.machines.validation import MAX_DESCRIPTION, MAX_KEY_NAME, parse_account_name
from userapi.permissions import Permission
from userapi.roles.assignment import require_listed

from .collection_fields import JsonObject, NetworkList, RoleNameList, TextList
from .common import PageOf, SortedPageQuery
from .fields import BoundedInteger, Choice, Moment, NameText, PastedText, Text
from .requests import OptionalBody, StrictSchema
from .users import MAX_METADATA_BYTES


class ServiceAccountUpdate(StrictSchema):
    """Changes to a service account. Omitted fields keep their values."""

    name = PastedText(max_length=256, metadata={"example": "media-worker"})
    description = NameText(max_length=MAX_DESCRIPTION, metadata={"example": "Converts uploads."})
    roles = RoleNameList(metadata={"example": ["media-editor"]})
    metadata = JsonObject(max_bytes=MAX_METADATA_BYTES, metadata={"example": {"team": "vision"}})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unusable name and for unknown roles."""
        # Callers who may not assign roles get 403 and do not learn which roles exist.
        may_assign = Permission.ROLES_ASSIGN in current_actor().permissions
        names = given.get("roles", ()) if may_assign else ()
        require_all(
            lambda: "name" in given and parse_account_name(given["name"]),
            lambda: require_listed(names, services().roles.graph().names),
        )


class ServiceAccountCreation(ServiceAccountUpdate):
    """A new service account. It has no keys yet."""

    name = PastedText(required=True, max_length=256, metadata={"example": "media-worker"})


class ServiceAccount(Schema):
    """A service account."""

    id = fields.UUID(metadata={"example": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"})
    client_id = fields.UUID(metadata={"example": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"})
    name = fields.String(metadata={"example": "media-worker"})
    description = fields.String(metadata={"example": "Converts uploads."})
    status = Choice(AccountStatus, metadata={"example": "active"})
    status_reason = fields.String(allow_none=True, metadata={"example": None})
    roles = fields.List(fields.String(), metadata={"example": ["media-editor"]})
    metadata = fields.Dict(metadata={"example": {"team": "vision"}})
    key_count = fields.Integer(metadata={"example": 1, "description": "Active keys."})
    last_used_at = Moment(allow_none=True, metadata={"example": "2026-01-31T12:00:00Z"})
    created_at = Moment(metadata={"example": "2026-01-31T12:00:00Z"})
    updated_at = Moment(metadata={"example": "2026-01-31T12:00:00Z"})
    created_by = fields.UUID(allow_none=True)


class ServiceAccountPage(PageOf):
    """A page of service accounts."""

    items = fields.List(fields.Nested(ServiceAccount))


class ServiceAccountQuery(SortedPageQuery):
    """Filters, and the page."""

    search = Text(max_length=200, metadata={"description": "Part of a name or description."})
    status = Choice(AccountStatus)
    role = Text(max_length=64)

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unknown sort field."""
        services().service_account_search.require_order(given.get("sort"))


class ApiKeyUpdate(StrictSchema):
    """Changes to an API key. Omitted fields keep their values."""

    name = NameText(min_length=1, max_length=MAX_KEY_NAME, metadata={"example": "production"})
    permissions = TextList(
        max_items=500,
        max_length=140,
        allow_none=True,
        metadata={
            "example": ["users:read"],
            "description": "What the key may do of what its owner may; null: everything.",
        },
    )
    allowed_networks = NetworkList(
        allow_none=True,
        metadata={
            "example": ["192.0.2.0/24"],
            "description": "Addresses and CIDR blocks that may use the key; null: all.",
        },
    )

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for texts that are not permissions or networks."""
        require_valid_changes(given)


class ApiKeyCreation(ApiKeyUpdate):
    """A new API key."""

    name = NameText(
        required=True, min_length=1, max_length=MAX_KEY_NAME, metadata={"example": "production"}
    )
    expires_at = Moment(
        allow_none=True,
        metadata={
            "example": "2030-01-31T12:00:00Z",
            "description": "null: never. Omitted: after API_KEY_DEFAULT_DAYS.",
        },
    )

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for texts that are no permissions or networks, and for the end."""
        services().key_creation.require_valid(dict(given))


class ApiKeyRotation(OptionalBody):
    """How long the old key continues to work, and when the new one expires."""

    overlap_seconds = BoundedInteger(
        minimum=0,
        maximum=int(MAX_OVERLAP.total_seconds()),
        metadata={
            "default": int(DEFAULT_OVERLAP.total_seconds()),
            "description": "0 revokes the old key immediately.",
        },
    )
    expires_at = Moment(
        allow_none=True,
        metadata={
            "example": "2030-01-31T12:00:00Z",
            "description": "null: never. Omitted: the new key lives as long as the old one.",
        },
    )

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an end that no key can have."""
        if "expires_at" in given:
            services().key_rotation.require_valid_expiry(given["expires_at"])


class ApiKey(Schema):
    """An API key. Its text is shown once, when it is created."""

    id = fields.UUID()
    name = fields.String(metadata={"example": "production"})
    hint = fields.String(metadata={"example": "GeM9", "description": "The last characters."})
    owner_type = Choice(OwnerType, metadata={"example": "service"})
    owner_id = fields.UUID()
    permissions = fields.List(
        fields.String(), allow_none=True, metadata={"example": ["users:read"]}
    )
    allowed_networks = fields.List(
        fields.String(), allow_none=True, metadata={"example": ["192.0.2.0/24"]}
    )
    status = Choice(KeyStatus, metadata={"example": "active"})
    created_at = Moment(metadata={"example": "2026-01-31T12:00:00Z"})
    created_by = fields.UUID(allow_none=True)
    expires_at = Moment(allow_none=True, metadata={"example": "2027-01-31T12:00:00Z"})
    last_used_at = Moment(allow_none=True, metadata={"example": "2026-01-31T12:00:00Z"})
    last_used_ip = fields.String(allow_none=True, metadata={"example": "192.0.2.7"})
    revoked_at = Moment(allow_none=True, metadata={"example": None})
    revoked_reason = fields.String(allow_none=True, metadata={"example": None})
    rotated_from = fields.UUID(allow_none=True)
    replaced_by = fields.UUID(allow_none=True)


class CreatedApiKey(ApiKey):
    """A new API key with its text, which is shown only here."""

    key = fields.String(metadata={"example": "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uN…"})


class ApiKeyList(Schema):
    """The keys of an owner, newest first; expired and revoked ones for 30 days."""

    items = fields.List(fields.Nested(ApiKey))


class ApiKeyQuery(StrictSchema):
    """A filter of keys."""

    status = Choice(KeyStatus)
