"""Schemas of imports and exports."""

from marshmallow import Schema, fields, validate

from userapi.accounts.job_columns import JobState
from userapi.infrastructure.export import ExportFormat

from .common import PageOf, ProblemField
from .fields import Choice, Moment, QueryBoolean
from .requests import StrictSchema
from .users import UserFilterQuery


class ImportQuery(StrictSchema):
    """Whether to change anything."""

    dry_run = QueryBoolean(
        load_default=False, metadata={"description": "Check everything and change nothing."}
    )


class ImportResult(Schema):
    """The result of one row."""

    row = fields.Integer(
        metadata={"example": 1, "description": "From 1. The header and empty lines do not count."}
    )
    status = fields.String(
        validate=validate.OneOf(["created", "error"]), metadata={"example": "error"}
    )
    id = fields.UUID()
    code = fields.String(metadata={"example": "username_taken"})
    errors = fields.List(fields.Nested(ProblemField))


class ImportAnswer(Schema):
    """The result of each row, in order."""

    dry_run = fields.Boolean()
    created = fields.Integer()
    failed = fields.Integer()
    ignored_columns = fields.List(
        fields.String(),
        metadata={
            "example": ["id", "created_at"],
            "description": "Columns of an export that an import does not use.",
        },
    )
    results = fields.List(fields.Nested(ImportResult))


class ImportResultPage(PageOf):
    """A page of the results of rows."""

    items = fields.List(fields.Nested(ImportResult))


class ImportJob(Schema):
    """An import by the worker."""

    id = fields.UUID()
    state = fields.String(
        validate=validate.OneOf([str(state) for state in JobState]),
        metadata={"example": "running"},
    )
    dry_run = fields.Boolean()
    rows = fields.Integer(metadata={"example": 5000, "description": "Number of rows in the file."})
    done = fields.Integer(metadata={"example": 1200})
    created = fields.Integer(metadata={"example": 1199})
    failed = fields.Integer(metadata={"example": 1})
    ignored_columns = fields.List(fields.String(), metadata={"example": []})
    created_by = fields.UUID(metadata={"description": "The user who started it."})
    created_at = Moment()
    started_at = Moment(allow_none=True)
    finished_at = Moment(allow_none=True)


class ExportQuery(UserFilterQuery):
    """Filters, and the format."""

    format = Choice(ExportFormat, load_default=ExportFormat.NDJSON)
    bom = QueryBoolean(
        load_default=False,
        metadata={"description": "Start CSV with a byte order mark, for Excel."},
    )
