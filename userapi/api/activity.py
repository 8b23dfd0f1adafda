"""The endpoint of a user's activity: /api/v1/users/{id}/activity."""

from typing import Any
from uuid import UUID

from userapi.accounts.errors import UserNotFound
from userapi.infrastructure.pagination import InvalidCursor, PageRequest, PageTooDeep
from userapi.permissions import Permission

from .access import requires
from .blueprint import Blueprint
from .context import current_actor, services
from .schemas.audit import AuditPage
from .schemas.common import PageQuery

blp = Blueprint(
    "activity",
    __name__,
    url_prefix="/api/v1/users",
    description="The audit entries of one user.",
)


@blp.route("/<uuid:user_id>/activity", methods=["GET"])
@requires(Permission.AUDIT_READ, or_self="user_id")
@blp.arguments(PageQuery, location="query")
@blp.response(200, AuditPage)
@blp.raises(InvalidCursor, PageTooDeep, UserNotFound)
def index(query: dict[str, Any], user_id: UUID) -> Any:
    """List the audit entries by or about a user, newest first.

    The entries of a deleted user remain.
    """
    found = services().audit_reader.activity(user_id, PageRequest(**query), actor=current_actor())
    if not found.total:
        services().accounts.get(user_id)
    return found
