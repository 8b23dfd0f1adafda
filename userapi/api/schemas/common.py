"""Shapes that several endpoints share."""

from marshmallow import Schema, fields, validate

from .fields import QueryInteger, StrictSchema, Text


class ProblemField(Schema):
    """A field that broke a rule."""

    field = fields.String(metadata={"description": "Dotted path into the request."})
    message = fields.String()
    code = fields.String()


class Problem(Schema):
    """A problem document (RFC 9457)."""

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String()
    instance = fields.String()
    code = fields.String(metadata={"description": "Stable; what clients switch on."})
    correlation_id = fields.String()
    errors = fields.List(fields.Nested(ProblemField))


class PageQuery(StrictSchema):
    """Which part of a list is wanted."""

    page = QueryInteger(least=1, most=10**9, metadata={"default": 1})
    page_size = QueryInteger(least=1, most=100, metadata={"default": 20})
    cursor = Text(most=2048, metadata={"description": "`next_cursor` of the answer before."})


class SortedPageQuery(PageQuery):
    """Which part of a list is wanted, and in which order."""

    sort = Text(
        most=200,
        metadata={
            "description": "Fields separated by commas; `-` before one turns it round.",
            "example": "-created_at,username",
        },
    )


class PageOf(Schema):
    """A part of a list."""

    total = fields.Integer(metadata={"description": "Counts to 10 000."})
    total_is_exact = fields.Boolean()
    page = fields.Integer()
    page_size = fields.Integer()
    pages = fields.Integer()
    next_cursor = fields.String(allow_none=True)


class Revoked(Schema):
    """How many sessions were ended."""

    revoked = fields.Integer(validate=validate.Range(min=0))


PAGE_FIELDS = ("page", "page_size", "cursor", "sort")
