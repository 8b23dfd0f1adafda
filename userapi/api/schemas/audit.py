"""Schemas of the audit log."""

from marshmallow import Schema, fields

from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.infrastructure.export import ExportFormat

from .common import PageOf, PageQuery
from .fields import Choice, Moment, NetworkAddress, QueryBoolean, Text
from .requests import StrictSchema


class AuditFilters(StrictSchema):
    """Filters, which can be combined."""

    actor_id = fields.UUID()
    actor_type = Choice(ActorType)
    key_id = fields.UUID()
    target_id = Text(max_length=64)
    action = Choice(AuditAction)
    outcome = Choice(Outcome)
    ip_address = NetworkAddress(max_length=100)
    correlation_id = Text(max_length=64)
    since = Moment()
    until = Moment()


class AuditQuery(PageQuery, AuditFilters):
    """Filters, and the page."""


class AuditExportQuery(AuditFilters):
    """Filters, and the format."""

    form = Choice(ExportFormat, data_key="format", metadata={"default": "ndjson"})
    bom = QueryBoolean(
        load_default=False,
        metadata={"description": "Start CSV with a byte order mark, for Excel."},
    )


class AuditEntry(Schema):
    """An action, its actor, its target and its outcome."""

    id = fields.UUID()
    occurred_at = Moment()
    action = fields.String(metadata={"example": "user.suspended"})
    outcome = fields.String(metadata={"example": "success"})
    actor_id = fields.UUID(allow_none=True)
    actor_username = fields.String(allow_none=True, metadata={"example": "admin"})
    actor_type = fields.String(metadata={"example": "user"})
    session_id = fields.UUID(allow_none=True)
    key_id = fields.UUID(allow_none=True)
    target_type = fields.String(allow_none=True, metadata={"example": "user"})
    target_id = fields.String(
        allow_none=True, metadata={"example": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"}
    )
    ip_address = fields.String(allow_none=True, metadata={"example": "192.0.2.7"})
    user_agent = fields.String(allow_none=True, metadata={"example": "curl/8.14"})
    correlation_id = fields.String(allow_none=True, metadata={"example": "3f9c2b7a51e84d06"})
    changes = fields.Dict(
        allow_none=True, metadata={"example": {"status": ["active", "suspended"]}}
    )
    details = fields.Dict(allow_none=True, metadata={"example": None})


class AuditPage(PageOf):
    """A page of the audit log."""

    items = fields.List(fields.Nested(AuditEntry))
