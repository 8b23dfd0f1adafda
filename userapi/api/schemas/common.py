"""Schemas that several endpoints share."""

from marshmallow import Schema, fields, validate

from .fields import QueryInteger, Text
from .requests import StrictSchema


class ProblemField(Schema):
    """A field that breaks a rule."""

    field = fields.String(
        metadata={"example": "email", "description": "Dotted path into the request."}
    )
    message = fields.String(metadata={"example": "Must be an e-mail address."})
    code = fields.String(metadata={"example": "invalid_email"})


class Problem(Schema):
    """A problem document (RFC 9457)."""

    type = fields.String(metadata={"example": "urn:aima:problem:validation_failed"})
    title = fields.String(metadata={"example": "Some fields are invalid."})
    status = fields.Integer(metadata={"example": 422})
    detail = fields.String(metadata={"example": "Some fields are invalid."})
    instance = fields.String(metadata={"example": "/api/v1/users/"})
    code = fields.String(
        metadata={"example": "validation_failed", "description": "Stable. Clients switch on it."}
    )
    correlation_id = fields.String(metadata={"example": "3f9c2b7a51e84d06"})
    errors = fields.List(
        fields.Nested(ProblemField),
        metadata={"description": "In a 422: every field that breaks a rule."},
    )
    permission = fields.String(
        metadata={
            "description": "In `permission_denied`: the missing permission.",
            "example": "users:read",
        }
    )
    missing_permissions = fields.List(
        fields.String(),
        metadata={
            "description": "In `permission_escalation`: the permissions that the caller lacks.",
            "example": ["users:delete"],
        },
    )
    mfa_token = fields.String(
        metadata={
            "description": "In `mfa_required` of a log-in: the token for the second step.",
            "example": "Zm9yIHRoZSBzZWNvbmQgc3RlcA",
        }
    )
    methods = fields.List(
        fields.String(),
        metadata={
            "description": "In `mfa_required`: how the account can pass the second step now.",
            "example": ["totp", "recovery_code"],
        },
    )
    expires_in = fields.Integer(
        metadata={
            "description": "In `mfa_required` of a log-in: how long the token is valid, in "
            "seconds.",
            "example": 300,
        }
    )
    max_age = fields.Integer(
        metadata={
            "description": "In `insufficient_user_authentication`: the maximum age of the "
            "authentication, in seconds (RFC 9470).",
            "example": 900,
        }
    )
    acr_values = fields.String(
        metadata={
            "description": "In `insufficient_user_authentication`: the level that the session "
            "lacks; absent if its level is high enough.",
            "example": "aal2",
        }
    )
    role = fields.String(
        metadata={"description": "In `role_in_use`: the role.", "example": "media-editor"}
    )
    error = fields.String(metadata={"example": "invalid_client"})
    error_description = fields.String(
        metadata={"example": "The client is unknown or its secret is wrong."}
    )


class PageQuery(StrictSchema):
    """The page of a list."""

    page = QueryInteger(minimum=1, maximum=10**9, metadata={"default": 1})
    page_size = QueryInteger(minimum=1, maximum=100, metadata={"default": 20})
    # Any text: everything but a cursor of this service is rejected as an invalid cursor.
    cursor = fields.String(metadata={"description": "`next_cursor` of the previous response."})


class SortedPageQuery(PageQuery):
    """The page of a list, and its order."""

    sort = Text(
        max_length=200,
        metadata={
            "description": "Fields separated by commas. `-` before a field sorts descending.",
            "example": "-created_at,username",
        },
    )


class PageOf(Schema):
    """A page of a list."""

    total = fields.Integer(metadata={"example": 1, "description": "Counted up to 10 000."})
    total_is_exact = fields.Boolean(metadata={"example": True})
    page = fields.Integer(metadata={"example": 1})
    page_size = fields.Integer(metadata={"example": 20})
    pages = fields.Integer(metadata={"example": 1})
    next_cursor = fields.String(allow_none=True, metadata={"example": None})


class Revoked(Schema):
    """The number of ended sessions."""

    revoked = fields.Integer(validate=validate.Range(min=0), metadata={"example": 2})


PAGE_FIELDS = ("page", "page_size", "cursor", "sort")
