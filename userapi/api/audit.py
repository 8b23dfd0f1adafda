"""Endpoints of the audit log: /api/v1/audit-logs."""

from typing import Any

from userapi.audit.service import AuditFilter
from userapi.paging import InvalidCursor, PageRequest
from userapi.permissions import Permission

from .access import requires
from .blueprint import Blueprint
from .context import current_actor, services
from .schemas.audit import AuditPage, AuditQuery
from .schemas.common import PAGE_FIELDS

blp = Blueprint("audit", __name__, url_prefix="/api/v1/audit-logs", description="Who did what")


@blp.route("/", methods=["GET"], strict_slashes=False)
@requires(Permission.AUDIT_READ)
@blp.arguments(AuditQuery, location="query")
@blp.response(200, AuditPage)
@blp.raises(InvalidCursor)
def index(query: dict[str, Any]) -> Any:
    """Read the audit log, newest first. That it was read is recorded, too."""
    page = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
    return services().audit_reader.page(
        AuditFilter(**query), PageRequest(**page), actor=current_actor()
    )
