"""Endpoints of imports and exports: /api/v1/users/import, /imports and /export."""

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request, url_for

from userapi.accounts.imports.errors import ImportNotFound, MalformedFile
from userapi.accounts.imports.files import ENCODINGS, ImportFormat, UserFile, open_text
from userapi.accounts.imports.job_models import ImportView
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.imports.rows import Row, require_step_up_for
from userapi.accounts.search import UserFilter
from userapi.errors import invalid_field
from userapi.infrastructure.pagination import InvalidCursor, Page, PageRequest, PageTooDeep
from userapi.passwords.hashing_pool import Busy
from userapi.permissions import Permission

from .access import requires
from .blueprint import Blueprint, View, declare, declare_problems
from .bodies import IMPORT_LIMIT_BYTES, UTF_8, read_body, require_media_type
from .context import current_actor, services
from .exports import export_response
from .operations import WITH_A_BODY
from .problems import UnsupportedMediaType
from .responses import as_json
from .schemas.common import PageQuery
from .schemas.transfers import (
    ExportQuery,
    ImportAnswer,
    ImportJob,
    ImportQuery,
    ImportResultPage,
)

NDJSON = "application/x-ndjson"
CSV = "text/csv"
RESPOND_ASYNC = "respond-async"
# A hash needs a quarter of a second of a core. A request waits for at most this many.
MAX_PASSWORDS = 200
MAX_ROWS = 20_000
WORKBOOKS = frozenset(
    {
        "application/vnd.ms-excel",
        "application/vnd.ms-excel.sheet.macroenabled.12",
        "application/vnd.oasis.opendocument.spreadsheet",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
)
FILE_SCHEMA = {"schema": {"type": "string"}}

blp = Blueprint(
    "transfers",
    __name__,
    url_prefix="/api/v1/users",
    description="Import and export of users as files.",
)


def accepts_file(view: View) -> View:
    """Allow bodies of the size of files, and document the problems that they cause."""
    view.body_limit = IMPORT_LIMIT_BYTES  # type: ignore[attr-defined]
    declare(view, request_headers={"Prefer": "`respond-async`: return 202 immediately (RFC 7240)."})
    return declare_problems(view, {n: WITH_A_BODY[n] for n in (408, 413, 415, 422)})


@blp.route("/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
@blp.arguments(ImportQuery, location="query")
@blp.response(200, ImportAnswer)
@blp.alt_response(
    202,
    schema=ImportJob,
    success=True,
    description="The worker imports the rows.",
    headers={
        "Location": {"description": "URL of the progress.", "schema": {"type": "string"}},
        "Preference-Applied": {
            "description": "`respond-async`, if the request preferred it.",
            "schema": {"type": "string"},
        },
    },
)
@blp.raises(MalformedFile, Busy)
@blp.doc(
    requestBody={"required": True, "content": {NDJSON: FILE_SCHEMA, CSV: FILE_SCHEMA}},
)
@accepts_file
def import_users(query: dict[str, Any]) -> Any:
    """Import users from NDJSON or CSV. Existing users are not changed.

    Columns: username, email, password or password_hash, first_name, last_name, roles (a list, or
    names separated by `;` or `,`), status. The other columns of an export are ignored and listed
    in `ignored_columns`. A hash is bcrypt, argon2id, Django's pbkdf2_sha256 or werkzeug's scrypt.
    A user without password and hash is invited by mail. CSV can be separated by commas, semicolons
    or tabs and be UTF-8, UTF-16 with a byte order mark or, with `charset=` in Content-Type,
    windows-1252 or iso-8859-1. Limits: 10 MiB and 20 000 rows. Roles other than `user` need
    `roles:assign`. Each row has its own result.

    With more than 200 plain passwords, or with `Prefer: respond-async`, the response is 202: the
    worker imports the rows, and `Location` is the URL of the progress.
    """
    rows, ignored = _rows_of_body()
    require_step_up_for(rows, current_actor())
    if _prefers_async() or takes_long(rows):
        job = services().import_jobs.create(
            rows, actor=current_actor(), dry_run=query["dry_run"], ignored_columns=ignored
        )
        return _accepted(job)
    batches = services().user_imports.run(rows, actor=current_actor(), dry_run=query["dry_run"])
    return _imported(list(chain.from_iterable(batches)), query["dry_run"], ignored)


@blp.route("/imports/<uuid:import_id>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
@blp.response(200, ImportJob)
@blp.raises(ImportNotFound)
def show_import(import_id: UUID) -> Any:
    """Get the progress of an import.

    `created` is the number of created users, or in a dry run the number that would be created. An
    import fails if its creator is suspended or loses `users:import`: the remaining rows are
    rejected. Imports are deleted 30 days after their end.
    """
    return as_json(services().import_jobs.get(import_id))


@blp.route("/imports/<uuid:import_id>", methods=["DELETE"])
@requires(Permission.USERS_IMPORT)
@blp.response(204)
@blp.raises(ImportNotFound)
def cancel_import(import_id: UUID) -> None:
    """Cancel the remaining rows of an import. Created users stay.

    The stored rows are deleted. An import that has ended does not change.
    """
    services().import_jobs.cancel(import_id, actor=current_actor())


@blp.route("/imports/<uuid:import_id>/results", methods=["GET"])
@requires(Permission.USERS_IMPORT)
@blp.arguments(PageQuery, location="query")
@blp.response(200, ImportResultPage)
@blp.raises(InvalidCursor, PageTooDeep, ImportNotFound)
def import_results(query: dict[str, Any], import_id: UUID) -> Any:
    """List the results of the imported rows, in the order of the file."""
    found = services().import_jobs.results(import_id, PageRequest(**query))
    page: Page[Any] = found
    return as_json(replace(page, items=[shown_result(item) for item in found.items]))


@blp.route("/export", methods=["GET"])
@requires(Permission.USERS_EXPORT)
@blp.arguments(ExportQuery, location="query")
@blp.doc(
    responses={
        "200": {"description": "The file.", "content": {NDJSON: FILE_SCHEMA, CSV: FILE_SCHEMA}}
    },
)
def export_users(query: dict[str, Any]) -> Any:
    """Export users as NDJSON or CSV, with the filters of the list. The export is recorded.

    In CSV, a cell that a spreadsheet would evaluate as a formula starts with an apostrophe. If the
    connection closes before the end of the response, the file is incomplete.
    """
    form, bom = query.pop("format"), query.pop("bom")
    pieces = services().user_exports.pieces(UserFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="users", now=services().clock.now(), bom=bom)


def _rows_of_body() -> tuple[list[Row], tuple[str, ...]]:
    form, charset = _format_of_body()
    return rows_of(read_body(IMPORT_LIMIT_BYTES), form, charset=charset)


def _format_of_body() -> tuple[ImportFormat, str | None]:
    """Return the format and charset in Content-Type. Raises UnsupportedMediaType."""
    if request.mimetype in WORKBOOKS:
        raise UnsupportedMediaType(
            "This endpoint accepts application/x-ndjson or text/csv. In Excel, save the workbook"
            " as CSV, and import that file."
        )
    charset = request.mimetype_params.get("charset")
    if request.mimetype == CSV:
        require_media_type(CSV, charsets=ENCODINGS)
        return ImportFormat.CSV, charset and charset.lower()
    require_media_type(NDJSON, CSV, charsets=UTF_8)
    return ImportFormat.NDJSON, None


def rows_of(
    raw: bytes, form: ImportFormat, *, charset: str | None = None
) -> tuple[list[Row], tuple[str, ...]]:
    """Return all rows of a file, and its ignored columns.

    An unreadable file is rejected before any row is imported. Raises MalformedFile, Invalid for
    too many rows.
    """
    file = UserFile(open_text(io.BytesIO(raw), form, charset=charset), form)
    rows: list[Row] = []
    for row in file:
        rows.append(row)
        if len(rows) > MAX_ROWS:
            message = f"Must have at most {MAX_ROWS} rows; split the file."
            raise invalid_field("body", message, "too_many_rows")
    return rows, file.ignored_columns


def takes_long(rows: Sequence[Row]) -> bool:
    """Return whether there are more passwords to hash than a request waits for."""
    return sum(row.has_password for row in rows) > MAX_PASSWORDS


def _prefers_async() -> bool:
    """Return whether the request has `Prefer: respond-async` (RFC 7240 §4.1)."""
    preferences = chain.from_iterable(
        header.split(",") for header in request.headers.getlist("Prefer")
    )
    return any(
        preference.partition(";")[0].strip().lower() == RESPOND_ASYNC for preference in preferences
    )


def _accepted(job: ImportView) -> Response:
    response = as_json(job, 202)
    response.headers["Location"] = url_for("transfers.show_import", import_id=job.id)
    if _prefers_async():
        response.headers["Preference-Applied"] = RESPOND_ASYNC
    return response


def _imported(
    results: Sequence[ImportResult], dry_run: bool, ignored_columns: tuple[str, ...]
) -> Response:
    created = sum(result.status == "created" for result in results)
    body = {
        "dry_run": dry_run,
        "created": created,
        "failed": len(results) - created,
        "ignored_columns": ignored_columns,
        "results": [shown_result(result) for result in results],
    }
    return Response(orjson.dumps(body), 200, mimetype="application/json")


def shown_result(result: ImportResult) -> dict[str, Any]:
    """Return the result of a row as responses show it."""
    shown: dict[str, Any] = {"row": result.row, "status": result.status}
    if result.id is not None:
        shown["id"] = result.id
    if result.code is not None:
        shown["code"] = result.code
    if result.errors:
        shown["errors"] = [
            {"field": e.field, "message": e.message, "code": e.code} for e in result.errors
        ]
    return shown
