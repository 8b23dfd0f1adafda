"""Endpoints of the audit log: /api/v1/audit-logs."""

from typing import Any

from userapi.audit.reading import AuditFilter
from userapi.infrastructure.export import MEDIA_TYPES, ExportFormat
from userapi.infrastructure.pagination import InvalidCursor, PageRequest, PageTooDeep
from userapi.permissions import Permission

from .access import requires
from .blueprint import Blueprint
from .context import current_actor, services
from .exports import export_response
from .schemas.audit import AuditExportQuery, AuditPage, AuditQuery
from .schemas.common import PAGE_FIELDS

blp = Blueprint(
    "audit",
    __name__,
    url_prefix="/api/v1/audit-logs",
    description="Who did what, when and from where, in an immutable log. Needs `audit:read`.",
)


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(Permission.AUDIT_READ)
@blp.arguments(AuditQuery, location="query")
@blp.response(200, AuditPage)
@blp.raises(InvalidCursor, PageTooDeep)
def index(query: dict[str, Any]) -> Any:
    """List the audit log, newest first. The access itself is recorded."""
    page = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
    return services().audit_reader.page(
        AuditFilter(**query), PageRequest(**page), actor=current_actor()
    )


@blp.route("/export", methods=["GET"])
@requires(Permission.AUDIT_READ)
@blp.arguments(AuditExportQuery, location="query")
@blp.response(200, {"type": "string"}, content_type=MEDIA_TYPES[ExportFormat.NDJSON])
@blp.alt_response(
    200, schema={"type": "string"}, content_type=MEDIA_TYPES[ExportFormat.CSV], success=True
)
def export(query: dict[str, Any]) -> Any:
    """Download the audit log as NDJSON or CSV. Newest first, with the filters of the list."""
    form: ExportFormat = query.pop("form", ExportFormat.NDJSON)
    bom: bool = query.pop("bom")
    pieces = services().audit_reader.export(AuditFilter(**query), form, actor=current_actor())
    return export_response(
        pieces, form=form, name="audit-logs", now=services().clock.now(), bom=bom
    )
