"""Shapes of the audit log."""

from marshmallow import Schema, fields

from userapi.audit.actions import AuditAction, Outcome
from userapi.export import ExportFormat

from .common import PageOf, PageQuery
from .fields import Choice, Moment, StrictSchema, Text


class AuditFilters(StrictSchema):
    """Filters that combine."""

    actor_id = fields.UUID()
    target_id = Text(most=64)
    action = Choice(AuditAction)
    outcome = Choice(Outcome)
    ip_address = Text(most=45)
    correlation_id = Text(most=64)
    since = Moment()
    until = Moment()


class AuditQuery(PageQuery, AuditFilters):
    """Filters that combine, and the part that is wanted."""


class AuditExportQuery(AuditFilters):
    """Filters that combine, and the form that is wanted."""

    form = Choice(ExportFormat, data_key="format", metadata={"default": "ndjson"})


class AuditEntry(Schema):
    """Who did what, to whom, and with what outcome."""

    id = fields.UUID()
    occurred_at = Moment()
    action = fields.String()
    outcome = fields.String()
    actor_id = fields.UUID(allow_none=True)
    actor_username = fields.String(allow_none=True)
    actor_type = fields.String()
    session_id = fields.UUID(allow_none=True)
    target_type = fields.String(allow_none=True)
    target_id = fields.String(allow_none=True)
    ip_address = fields.String(allow_none=True)
    user_agent = fields.String(allow_none=True)
    correlation_id = fields.String(allow_none=True)
    changes = fields.Dict(allow_none=True)
    details = fields.Dict(allow_none=True)


class AuditPage(PageOf):
    """A part of the audit log."""

    items = fields.List(fields.Nested(AuditEntry))
