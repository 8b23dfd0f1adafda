"""Users as files: POST /api/v1/users/import and GET /api/v1/users/export."""

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
from userapi.accounts.imports.rows import Row
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
# A hash takes a quarter of a second of a core: a request waits for no more than so many.
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
    description="Many users as a file, in and out.",
)


def accepts_file(view: View) -> View:
    """Allow bodies of the size of files, and document the problems that they cause."""
    view.body_limit = IMPORT_LIMIT_BYTES  # type: ignore[attr-defined]
    declare(view, request_headers={"Prefer": "`respond-async`: return 202 at once (RFC 7240)."})
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
        "Location": {"description": "Where to ask for progress.", "schema": {"type": "string"}},
        "Preference-Applied": {
            "description": "`respond-async`, where that was preferred.",
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
    """Import users from NDJSON or CSV. None that is there already is changed.

    Columns: username, email, password or password_hash, first_name, last_name, roles (a list, or
    names with `;` or `,` between), status. The other columns of an export are ignored and listed
    in `ignored_columns`. A hash is bcrypt, argon2id, Django's pbkdf2_sha256 or werkzeug's scrypt.
    Without password and hash a user is invited by mail. CSV may be separated by commas, semicolons
    or tabs and be UTF-8, UTF-16 with a byte order mark or, with `charset=` in Content-Type,
    windows-1252 or iso-8859-1. Takes 10 MiB and 20 000 rows; roles other than `user` need
    `roles:assign`. Each row has its own result.

    With more than 200 plain passwords, or with `Prefer: respond-async`, the answer is 202: the
    worker imports the rows, and `Location` tells how far it is.
    """
    form, charset = _kind_of_body()
    rows, ignored = rows_of(read_body(IMPORT_LIMIT_BYTES), form, charset=charset)
    dry_run = query["dry_run"]
    if _prefers_async() or takes_long(rows):
        job = services().import_jobs.create(
            rows, actor=current_actor(), dry_run=dry_run, ignored_columns=ignored
        )
        return _accepted(job)
    batches = services().user_imports.run(rows, actor=current_actor(), dry_run=dry_run)
    results = [result for batch in batches for result in batch]
    created = sum(result.status == "created" for result in results)
    answer = {
        "dry_run": dry_run,
        "created": created,
        "failed": len(results) - created,
        "ignored_columns": ignored,
        "results": [shown_result(result) for result in results],
    }
    return Response(orjson.dumps(answer), 200, mimetype="application/json")


@blp.route("/imports/<uuid:import_id>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
@blp.response(200, ImportJob)
@blp.raises(ImportNotFound)
def show_import(import_id: UUID) -> Any:
    """Show how far an import is.

    `created` counts the users that were created; those that would be, where it is a dry run. A job
    fails when whoever started it is suspended or loses `users:import`: the rest of the rows is
    refused. It is deleted 30 days after its end.
    """
    return as_json(services().import_jobs.get(import_id))


@blp.route("/imports/<uuid:import_id>", methods=["DELETE"])
@requires(Permission.USERS_IMPORT)
@blp.response(204)
@blp.raises(ImportNotFound)
def cancel_import(import_id: UUID) -> None:
    """Cancel what is not done yet of an import. Users that were created stay.

    The stored rows are deleted. An import that has ended stays as it is.
    """
    services().import_jobs.cancel(import_id, actor=current_actor())


@blp.route("/imports/<uuid:import_id>/results", methods=["GET"])
@requires(Permission.USERS_IMPORT)
@blp.arguments(PageQuery, location="query")
@blp.response(200, ImportResultPage)
@blp.raises(InvalidCursor, PageTooDeep, ImportNotFound)
def import_results(query: dict[str, Any], import_id: UUID) -> Any:
    """List what became of each row that is done, in the order of the file."""
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
    """Export users as NDJSON or CSV. Takes the filters of the list; that it was read is recorded.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe. A file that
    breaks off is not complete: it ends in order only when every user is in it.
    """
    form, bom = query.pop("format"), query.pop("bom")
    pieces = services().user_exports.pieces(UserFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="users", now=services().clock.now(), bom=bom)


def _kind_of_body() -> tuple[ImportFormat, str | None]:
    """Return what the body says that it is. Raises UnsupportedMediaType."""
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
    """Return all rows of a file, and the columns of it that are ignored.

    What makes the file unreadable is found before any row is imported. Raises MalformedFile,
    Invalid for more than one request takes.
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
    """Return whether the caller prefers not to wait (RFC 7240 §4.1)."""
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


def shown_result(result: ImportResult) -> dict[str, Any]:
    """Return a result as answers show it."""
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
