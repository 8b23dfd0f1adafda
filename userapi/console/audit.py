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
NOBODY: dict[str, Any] = {"invalid_uuid": "Nobody has this user name or id."}


class PageFilters(AuditQuery):
    """Filters of the page, where users can be named by their user name, too."""

    actor_id = fields.UUID(error_messages=NOBODY)


class ExportFilters(AuditExportQuery):
    """Filters of the page, for a file."""

    actor_id = fields.UUID(error_messages=NOBODY)


@blp.route("/audit", methods=["GET"])
@requires(Permission.AUDIT_READ)
def audit_page() -> Response:
    """Show the log, newest first, with filters that combine. That it was read is recorded."""
    values: dict[str, Any] = {
        "actions": [("", "any"), *((action, action) for action in AuditAction)],
        "outcomes": [("", "any"), *((outcome, outcome) for outcome in Outcome)],
        "seals": services().audit_seals.state(),
        "filters": typed_filters(PageFilters, but=PAGE_FIELDS),
    }
    try:
        query = read_query(PageFilters, page_size=ROWS_PER_PAGE, **_given())
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
    query = read_query(ExportFilters, format=request.args.get("format"), **_given())
    form: ExportFormat = query.pop("form", ExportFormat.NDJSON)
    del query["bom"]  # What a person downloads here goes into a spreadsheet.
    pieces = services().audit_reader.export(AuditFilter(**query), form, actor=current_actor())
    return export_response(
        pieces, form=form, name="audit-logs", now=services().clock.now(), bom=True
    )


def _given() -> dict[str, Any]:
    """Return what stands in the address in another form than that of the API.

    The two days are whole days both of them.
    """
    return {
        "since": day("since"),
        "until": day("until", after=1),
        "actor_id": _id_of("actor_id"),
        "target_id": _id_of("target_id"),
    }


def _id_of(name: str) -> str | None:
    """Return the id of the user that a filter names; what names none is left as it is.

    What was done to a role is found by the role's name.
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
    """Return the user names, by id, of those that something was done to and who are still there."""
    ids = {UUID(row.target_id) for row in rows if row.target_type == "user" and row.target_id}
    return {str(user_id): name for user_id, name in services().user_search.names(ids).items()}
