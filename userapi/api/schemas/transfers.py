"""Shapes of importing and exporting users."""

from marshmallow import Schema, fields, validate

from userapi.export import ExportFormat

from .common import ProblemField
from .fields import Choice, QueryBoolean, StrictSchema
from .users import UserFilterQuery


class ImportQuery(StrictSchema):
    """Whether it is meant."""

    dry_run = QueryBoolean(
        load_default=False, metadata={"description": "Check everything and change nothing."}
    )


class ImportResult(Schema):
    """What became of one row."""

    row = fields.Integer(
        metadata={"example": 1, "description": "From 1; a header and empty lines do not count."}
    )
    status = fields.String(
        validate=validate.OneOf(["created", "error"]), metadata={"example": "error"}
    )
    id = fields.UUID()
    code = fields.String(metadata={"example": "username_taken"})
    errors = fields.List(fields.Nested(ProblemField))


class ImportAnswer(Schema):
    """What became of each row, in order."""

    dry_run = fields.Boolean()
    created = fields.Integer()
    failed = fields.Integer()
    ignored_columns = fields.List(
        fields.String(),
        metadata={
            "example": ["id", "created_at"],
            "description": "Columns that an export has and an import does not use.",
        },
    )
    results = fields.List(fields.Nested(ImportResult))


class ExportQuery(UserFilterQuery):
    """Which users, and as what."""

    format = Choice(ExportFormat, load_default=ExportFormat.NDJSON)
    bom = QueryBoolean(
        load_default=False,
        metadata={"description": "Begin CSV with a byte order mark, for Excel."},
    )
