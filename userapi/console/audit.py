"""Pages of the audit log."""

from typing import Any

from flask import request
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.schemas.audit import AuditExportQuery, AuditQuery
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.service import AuditFilter
from userapi.errors import ServiceError
from userapi.export import ExportFormat
from userapi.paging import PageRequest
from userapi.permissions import Permission

from .forms import day, read_query
from .pages import blp, page, refuse, requires

ROWS_PER_PAGE = "50"


@blp.route("/audit", methods=["GET"])
@requires(Permission.AUDIT_READ)
def audit_page() -> Response:
    """Show the log, newest first, with filters that combine. That it was read is recorded."""
    values: dict[str, Any] = {
        "actions": [("", "any"), *((action, action) for action in AuditAction)],
        "outcomes": [("", "any"), *((outcome, outcome) for outcome in Outcome)],
        "seals": services().audit_seals.state(),
        "filters": {n: v for n, v in request.args.items() if v and n not in PAGE_FIELDS},
    }
    try:
        query = read_query(AuditQuery, page_size=ROWS_PER_PAGE, **_days())
        part = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
        rows = services().audit_reader.page(
            AuditFilter(**query), PageRequest(**part), actor=current_actor()
        )
    except ServiceError as error:
        return refuse(error, "audit.html", rows=None, **values)
    return page("audit.html", rows=rows, **values)


@blp.route("/audit/export", methods=["GET"])
@requires(Permission.AUDIT_READ)
def export_audit() -> Response:
    """Download the log with the filters of the page."""
    query = read_query(AuditExportQuery, format=request.args.get("format"), **_days())
    form: ExportFormat = query.pop("form", ExportFormat.NDJSON)
    pieces = services().audit_reader.export(AuditFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="audit-logs", now=services().clock.now())


def _days() -> dict[str, Any]:
    """Return the span that the two date fields name, whole days both of them."""
    return {"since": day("since"), "until": day("until", after=1)}
