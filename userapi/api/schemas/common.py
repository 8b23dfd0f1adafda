"""Shapes that several endpoints share."""

from marshmallow import Schema, fields, validate

from .fields import QueryInteger, StrictSchema, Text


class ProblemField(Schema):
    """A field that broke a rule."""

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
        metadata={"example": "validation_failed", "description": "Stable; what clients switch on."}
    )
    correlation_id = fields.String(metadata={"example": "3f9c2b7a51e84d06"})
    errors = fields.List(
        fields.Nested(ProblemField),
        metadata={"description": "Of a 422: every field that broke a rule."},
    )
    permission = fields.String(
        metadata={
            "description": "Of `permission_denied`: the permission that is missing.",
            "example": "users:read",
        }
    )
    missing_permissions = fields.List(
        fields.String(),
        metadata={
            "description": "Of `permission_escalation`: what the caller does not hold.",
            "example": ["users:delete"],
        },
    )
    role = fields.String(
        metadata={"description": "Of `role_in_use`: the role.", "example": "media-editor"}
    )


class PageQuery(StrictSchema):
    """Which part of a list is wanted."""

    page = QueryInteger(minimum=1, maximum=10**9, metadata={"default": 1})
    page_size = QueryInteger(minimum=1, maximum=100, metadata={"default": 20})
    # Of any length and content: what is no cursor of ours is a damaged one, and refused as that.
    cursor = fields.String(metadata={"description": "`next_cursor` of the answer before."})


class SortedPageQuery(PageQuery):
    """Which part of a list is wanted, and in which order."""

    sort = Text(
        max_length=200,
        metadata={
            "description": "Fields separated by commas; `-` before one turns it round.",
            "example": "-created_at,username",
        },
    )


class PageOf(Schema):
    """A part of a list."""

    total = fields.Integer(metadata={"example": 1, "description": "Counts to 10 000."})
    total_is_exact = fields.Boolean(metadata={"example": True})
    page = fields.Integer(metadata={"example": 1})
    page_size = fields.Integer(metadata={"example": 20})
    pages = fields.Integer(metadata={"example": 1})
    next_cursor = fields.String(allow_none=True, metadata={"example": None})


class Revoked(Schema):
    """How many sessions were ended."""

    revoked = fields.Integer(validate=validate.Range(min=0), metadata={"example": 2})


PAGE_FIELDS = ("page", "page_size", "cursor", "sort")
