"""Schemas of roles."""

from collections.abc import Mapping
from typing import Any

from flask import request
from marshmallow import Schema, fields

from userapi.api.context import services

from .collection_fields import TextList
from .fields import Moment, NameText, Text
from .requests import StrictSchema


class Role(Schema):
    """A role with its own and its inherited permissions."""

    name = fields.String(metadata={"example": "moderator"})
    description = fields.String(metadata={"example": "Looks after people and what they do."})
    permissions = fields.List(fields.String(), metadata={"example": ["users:suspend"]})
    parents = fields.List(fields.String(), metadata={"example": ["user"]})
    effective_permissions = fields.List(
        fields.String(), metadata={"example": ["users:read", "users:suspend"]}
    )
    builtin = fields.Boolean(metadata={"example": True})
    user_count = fields.Integer(metadata={"example": 3})
    service_account_count = fields.Integer(metadata={"example": 1})
    created_at = Moment()
    updated_at = Moment()


class RoleUpdate(StrictSchema):
    """Changes to a role. Omitted fields keep their values."""

    name = Text(max_length=256, metadata={"description": "The current name. It cannot be changed."})
    description = NameText(max_length=500, metadata={"example": "Looks after what people upload."})
    permissions = TextList(max_items=500, max_length=140, metadata={"example": ["media:upload"]})
    parents = TextList(max_items=50, max_length=64, metadata={"example": ["user"]})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for values that no role can have, and for a changed name."""
        services().role_editor.require_valid(given, name=(request.view_args or {}).get("name"))


class RoleCreation(RoleUpdate):
    """A new role."""

    name = Text(required=True, max_length=256, metadata={"example": "media-editor"})


class RoleList(Schema):
    """All roles."""

    items = fields.List(fields.Nested(Role))


class KnownPermission(Schema):
    """A permission and its description."""

    name = fields.String(metadata={"example": "users:read"})
    description = fields.String(metadata={"example": "See every user."})


class PermissionList(Schema):
    """The permissions of this service, and those of other services in roles."""

    items = fields.List(fields.Nested(KnownPermission))
