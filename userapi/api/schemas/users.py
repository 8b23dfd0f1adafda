"""Schemas of users."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, post_dump, validate

from userapi.accounts.bulk import MAX_USERS
from userapi.accounts.bulk_actions import BulkAction
from userapi.accounts.models import UserStatus
from userapi.accounts.validation import require_valid_account
from userapi.api.context import current_actor, services
from userapi.errors import require_all
from userapi.permissions import Permission
from userapi.roles.assignment import require_listed

from .collection_fields import JsonObject, RoleNameList, UuidList
from .common import PageOf, SortedPageQuery
from .factors import Mfa
from .fields import Choice, Moment, NameText, PastedText, QueryBoolean, StrictBoolean, Text
from .requests import OptionalBody, StrictSchema
from .user_fields import LanguageTag, Password, PhoneNumber, TimeZone, WebAddress

MAX_METADATA_BYTES = 16 * 1024


class ProfileUpdate(StrictSchema):
    """The profile fields that users may change themselves. Null clears a field."""

    first_name = NameText(max_length=100, allow_none=True, metadata={"example": "Ada"})
    last_name = NameText(max_length=100, allow_none=True, metadata={"example": "Lovelace"})
    phone = PhoneNumber(max_length=32, allow_none=True, metadata={"example": "+41 44 668 18 00"})
    locale = LanguageTag(max_length=35, allow_none=True, metadata={"example": "en-GB"})
    timezone = TimeZone(max_length=64, allow_none=True, metadata={"example": "Europe/London"})
    avatar_url = WebAddress(
        max_length=2048, allow_none=True, metadata={"example": "https://cdn.example.com/ada.png"}
    )


class Registration(ProfileUpdate):
    """A registration."""

    username = PastedText(required=True, max_length=256, metadata={"example": "ada"})
    email = PastedText(required=True, max_length=320, metadata={"example": "ada@example.com"})
    password = Password(required=True)

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unusable name, address or password."""
        require_valid_account(given, services().policy, reserved_allowed=False)


class UserCreation(Registration):
    """A new user. Without a password, the user is invited by mail."""

    password = Password()
    roles = RoleNameList(metadata={"example": ["user"]})
    status = Choice(UserStatus)
    metadata = JsonObject(max_bytes=MAX_METADATA_BYTES, metadata={"example": {"team": "vision"}})
    must_change_password = StrictBoolean()

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unusable name, address or password, and for unknown roles."""
        _require_valid_account(given)


class UserUpdate(ProfileUpdate):
    """Changes to a user. Omitted fields keep their values."""

    username = PastedText(max_length=256, metadata={"example": "ada"})
    email = PastedText(max_length=320, metadata={"example": "ada@example.com"})
    metadata = JsonObject(max_bytes=MAX_METADATA_BYTES, metadata={"example": {"team": "vision"}})
    must_change_password = StrictBoolean()
    status = Choice(UserStatus)
    roles = RoleNameList(metadata={"example": ["user", "moderator"]})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unusable name or address, and for unknown roles."""
        _require_valid_account(given)


def _require_valid_account(given: Mapping[str, Any]) -> None:
    # Callers who may not assign roles get 403 and do not learn which roles exist.
    names = given.get("roles", ()) if Permission.ROLES_ASSIGN in current_actor().permissions else ()
    require_all(
        lambda: require_valid_account(given, services().policy),
        lambda: require_listed(names, services().roles.graph().names),
    )


class User(Schema):
    """A user."""

    id = fields.UUID(metadata={"example": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"})
    username = fields.String(metadata={"example": "ada"})
    email = fields.String(metadata={"example": "ada@example.com"})
    email_verified = fields.Boolean(metadata={"example": True})
    first_name = fields.String(allow_none=True, metadata={"example": "Ada"})
    last_name = fields.String(allow_none=True, metadata={"example": "Lovelace"})
    phone = fields.String(allow_none=True, metadata={"example": "+41446681800"})
    locale = fields.String(allow_none=True, metadata={"example": "en-GB"})
    timezone = fields.String(allow_none=True, metadata={"example": "Europe/London"})
    avatar_url = fields.String(
        allow_none=True, metadata={"example": "https://cdn.example.com/ada.png"}
    )
    status = Choice(UserStatus, metadata={"example": "active"})
    status_reason = fields.String(allow_none=True, metadata={"example": None})
    suspended_until = Moment(allow_none=True, metadata={"example": None})
    roles = fields.List(fields.String(), metadata={"example": ["user"]})
    metadata = fields.Dict(metadata={"example": {"team": "vision"}})
    must_change_password = fields.Boolean(metadata={"example": False})
    mfa_enabled = fields.Boolean(metadata={"example": False})
    created_at = Moment(metadata={"example": "2026-01-31T12:00:00Z"})
    updated_at = Moment(metadata={"example": "2026-01-31T12:00:00Z"})
    last_login_at = Moment(allow_none=True, metadata={"example": "2026-01-31T12:00:00Z"})
    locked_until = Moment(allow_none=True, metadata={"example": None})


class UserPage(PageOf):
    """A page of users."""

    items = fields.List(fields.Nested(User))


class UserFilterQuery(StrictSchema):
    """Filters, which can be combined."""

    search = Text(
        max_length=200,
        metadata={"description": "Part of a name or address. Wildcards are not supported."},
    )
    status = Choice(UserStatus)
    role = Text(max_length=64)
    email = PastedText(max_length=320, metadata={"description": "The whole address."})
    created_after = Moment()
    created_before = Moment()
    last_login_after = Moment()
    last_login_before = Moment()
    locked = QueryBoolean()
    mfa_enabled = QueryBoolean()


class UserQuery(UserFilterQuery, SortedPageQuery):
    """Filters, and the page."""

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an unknown sort field."""
        services().user_search.require_order(given.get("sort"))


class Suspension(OptionalBody):
    """The reason and the end of a suspension."""

    reason = Text(max_length=500, allow_none=True, metadata={"example": "Chargeback"})
    until = Moment(allow_none=True, metadata={"example": "2030-01-31T12:00:00Z"})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for a time in the past."""
        services().account_suspension.require_future(given.get("until"))


class OptionalReason(OptionalBody):
    """The reason of an action."""

    reason = Text(max_length=500, allow_none=True)


class OwnDeletion(StrictSchema):
    """The current password, as a confirmation."""

    current_password = Password(required=True)


class PersonalExport(Schema):
    """All data about a user."""

    profile = fields.Nested(User)
    mfa = fields.Nested(Mfa)
    sessions = fields.List(fields.Dict())
    api_keys = fields.List(fields.Dict())
    audit = fields.List(fields.Dict())


class RoleNames(Schema):
    """Names of roles."""

    roles = fields.List(fields.String(), metadata={"example": ["user", "moderator"]})


class RoleAssignment(StrictSchema):
    """The new roles of a user."""

    roles = RoleNameList(required=True, metadata={"example": ["moderator"]})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for unknown roles."""
        _require_valid_account(given)


class ExplainedPermission(Schema):
    """A permission, and the chains of roles that grant it."""

    permission = fields.String(metadata={"example": "users:read"})
    via = fields.List(
        fields.List(fields.String()),
        metadata={
            "description": "Chains of roles from the user to the permission, at most 100.",
            "example": [["admin", "moderator"]],
        },
    )


class ExplainedPermissions(Schema):
    """The permissions of a user, and their origin."""

    items = fields.List(fields.Nested(ExplainedPermission))


class BulkRequest(StrictSchema):
    """An action for many users."""

    action = Choice(BulkAction, required=True, metadata={"example": "suspend"})
    user_ids = UuidList(
        required=True,
        max_items=MAX_USERS,
        metadata={"example": ["01990000-0000-7000-8000-000000000001"]},
    )
    reason = Text(max_length=500, allow_none=True)
    role = Text(max_length=64, metadata={"description": "Only for assign_role and remove_role."})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid if the action needs a role and has none, or the reverse."""
        if "action" in given:
            services().bulk.require_fitting_role(given["action"], given.get("role"))


class BulkResult(Schema):
    """The result for one user."""

    id = fields.UUID()
    status = fields.String(validate=validate.OneOf(["ok", "error"]), metadata={"example": "error"})
    code = fields.String(
        metadata={
            "example": "insufficient_rank",
            "description": "The code of the error, if there is one.",
        }
    )

    @post_dump
    def omit_empty(self, shown: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Omit the code of a success."""
        return {name: value for name, value in shown.items() if value is not None}


class BulkAnswer(Schema):
    """One result for each user, in order. Repeated ids are handled once."""

    results = fields.List(fields.Nested(BulkResult))
    succeeded = fields.Integer(metadata={"example": 0})
    failed = fields.Integer(metadata={"example": 1})
