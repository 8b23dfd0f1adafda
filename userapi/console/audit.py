"""Pages of the audit log."""

from typing import Any
from uuid import UUID

from flask import flash, request
from flask_babel import gettext
from marshmallow import fields
from werkzeug.wrappers import Response

from userapi.accounts.errors import UserNotFound
from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.schemas.audit import AuditExportQuery
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.reading import AuditFilter
from userapi.characters import has_controls
from userapi.errors import ServiceError, invalid_field
from userapi.infrastructure.export import ExportFormat
from userapi.infrastructure.pagination import InvalidCursor
from userapi.permissions import Permission

from .access import requires
from .audit_sentences import actor_in_words, sentence
from .audit_targets import names_of, target_of
from .blueprint import blp
from .errors import page_with_errors
from .forms import day, read_query, typed_filters
from .list_preferences import NOT_FILTERS, values_of_list
from .list_queries import AuditPageQuery
from .lists import position_of, requested_page
from .problem_texts import N_, translated
from .rendering import page, redirect_to

UNKNOWN_USER: dict[str, Any] = {"invalid_uuid": N_("No user has this name or id.")}


class PageFilters(AuditPageQuery):
    """Filters of the page, which accept user names as well as ids."""

    actor_id = fields.UUID(error_messages=UNKNOWN_USER)
    about = fields.UUID(error_messages=UNKNOWN_USER)


class ExportFilters(AuditExportQuery):
    """Filters of the page, for a download."""

    actor_id = fields.UUID(error_messages=UNKNOWN_USER)
    about = fields.UUID(error_messages=UNKNOWN_USER)
    session_id = fields.UUID()
    reads = fields.String()


@blp.route("/audit", methods=["GET"])
@requires(Permission.AUDIT_READ)
def audit_page() -> Response:
    """Show the log with filters, newest first. The access is recorded."""
    filters = typed_filters(PageFilters, exclude=(*NOT_FILTERS, "sort"))
    values: dict[str, Any] = values_of_list("audit", filters) | {
        "actions": [("", gettext("any")), *((action, action) for action in AuditAction)],
        "outcomes": [
            ("", gettext("any")),
            *((outcome, translated(outcome)) for outcome in Outcome),
        ],
        "seals": services().audit_seals.state(),
    }
    try:
        wanted = _filter(read_query(PageFilters, page=None, page_size=None, **_converted()))
        rows = services().audit_reader.page(
            wanted, requested_page(page_size=values["page_size"]), actor=current_actor()
        )
    except InvalidCursor:
        flash(gettext("This page of the log is out of date. These are the newest rows."), "info")
        return redirect_to("audit_page", **filters)
    except ServiceError as error:
        return page_with_errors(error, "audit.html", rows=None, **values)
    total = rows.total if rows.total_is_exact else None
    return page(
        "audit.html",
        rows=rows,
        total=total,
        position=position_of(rows, total),
        names=names_of(rows.items),
        sentence=sentence,
        target_of=target_of,
        actor_in_words=actor_in_words,
        **values,
    )


@blp.route("/audit/export", methods=["GET"])
@requires(Permission.AUDIT_READ)
def export_audit() -> Response:
    """Download the log with the filters of the page."""
    query = read_query(ExportFilters, format=request.args.get("format"), **_converted())
    form: ExportFormat = query.pop("form", ExportFormat.NDJSON)
    del query["bom"]  # Downloads from the console are opened in spreadsheets.
    pieces = services().audit_reader.export(_filter(query), form, actor=current_actor())
    return export_response(
        pieces, form=form, name="audit-logs", now=services().clock.now(), bom=True
    )


def _filter(query: dict[str, Any]) -> AuditFilter:
    """Return the filter of the page, which hides the viewer's own reads unless they are requested.

    Raises Invalid for a session without its user: only the rows of a user are indexed.
    """
    values = {name: query[name] for name in query if name not in PAGE_FIELDS}
    shows_reads = values.pop("reads", None) == "own" or values.get("action") == "audit.read"
    if "session_id" in values and "actor_id" not in values:
        message = gettext("Enter the actor of the session, too.")
        raise invalid_field("actor_id", message, "required")
    if not shows_reads:
        values["without_reads_of"] = current_actor().id
    return AuditFilter(**values)


def _converted() -> dict[str, Any]:
    """Return the filters of the page in the form of the API. Both days are included."""
    return {
        "since": day("since"),
        "until": day("until", after=1),
        "actor_id": _id_of("actor_id"),
        "target_id": _id_of("target_id"),
        "about": _id_of("about"),
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
