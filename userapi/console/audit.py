"""Pages of the audit log."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import request
from marshmallow import fields
from sqlalchemy import Row
from werkzeug.wrappers import Response

from userapi.accounts.errors import UserNotFound
from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.schemas.audit import AuditExportQuery, AuditQuery
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.reading import AuditFilter
from userapi.characters import has_controls
from userapi.errors import ServiceError
from userapi.infrastructure.export import ExportFormat
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import Permission

from .access import requires
from .blueprint import blp
from .errors import page_with_errors
from .forms import day, read_query, typed_filters
from .rendering import page

ROWS_PER_PAGE = "50"
UNKNOWN_USER: dict[str, Any] = {"invalid_uuid": "No user has this name or id."}


class PageFilters(AuditQuery):
    """Filters of the page, which accept user names as well as ids."""

    actor_id = fields.UUID(error_messages=UNKNOWN_USER)


class ExportFilters(AuditExportQuery):
    """Filters of the page, for a download."""

    actor_id = fields.UUID(error_messages=UNKNOWN_USER)


@blp.route("/audit", methods=["GET"])
@requires(Permission.AUDIT_READ)
def audit_page() -> Response:
    """Show the log with filters, newest first. The access is recorded."""
    values: dict[str, Any] = {
        "actions": [("", "any"), *((action, action) for action in AuditAction)],
        "outcomes": [("", "any"), *((outcome, outcome) for outcome in Outcome)],
        "seals": services().audit_seals.state(),
        "filters": typed_filters(PageFilters, exclude=PAGE_FIELDS),
    }
    try:
        query = read_query(PageFilters, page_size=ROWS_PER_PAGE, **_converted())
        part = {name: query.pop(name) for name in PAGE_FIELDS if name in query}
        rows = services().audit_reader.page(
            AuditFilter(**query), PageRequest(**part), actor=current_actor()
        )
    except ServiceError as error:
        return page_with_errors(error, "audit.html", rows=None, **values)
    return page("audit.html", rows=rows, names=_names(rows.items), **values)


@blp.route("/audit/export", methods=["GET"])
@requires(Permission.AUDIT_READ)
def export_audit() -> Response:
    """Download the log with the filters of the page."""
    query = read_query(ExportFilters, format=request.args.get("format"), **_converted())
    form: ExportFormat = query.pop("form", ExportFormat.NDJSON)
    del query["bom"]  # Downloads from the console are opened in spreadsheets.
    pieces = services().audit_reader.export(AuditFilter(**query), form, actor=current_actor())
    return export_response(
        pieces, form=form, name="audit-logs", now=services().clock.now(), bom=True
    )


def _converted() -> dict[str, Any]:
    """Return the filters of the page in the form of the API. Both days are included."""
    return {
        "since": day("since"),
        "until": day("until", after=1),
        "actor_id": _id_of("actor_id"),
        "target_id": _id_of("target_id"),
    }


def _id_of(name: str) -> str | None:
    """Return the id of the user that a filter names; any other text unchanged.

    Such a text can be the name of a role.
    """
    text = request.args.get(name) or None
    if text is None or _is_id(text) or has_controls(text):
        return text
    try:
        return str(services().accounts.get_by_name(text).id)
    except UserNotFound:
        return text


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _names(rows: Sequence[Row[Any]]) -> dict[str, str]:
    """Return the user names of the targets, by id. Deleted users have none."""
    ids = {UUID(row.target_id) for row in rows if row.target_type == "user" and row.target_id}
    return {str(user_id): name for user_id, name in services().user_search.names(ids).items()}
