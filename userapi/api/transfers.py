"""Users as files: POST /api/v1/users/import and GET /api/v1/users/export."""

import io
from typing import Any

import orjson
from flask import Response, request

from userapi.accounts.import_files import (
    ENCODINGS,
    ImportFormat,
    MalformedFile,
    Row,
    UserFile,
    open_text,
)
from userapi.accounts.imports import ImportResult
from userapi.accounts.search import UserFilter
from userapi.errors import invalid_field
from userapi.passwords.gate import Busy
from userapi.permissions import Permission

from .access import requires
from .blueprint import WITH_A_BODY, Blueprint
from .bodies import IMPORT_LIMIT_BYTES, UTF_8, read_body, require_media_type
from .context import current_actor, services
from .exports import export_response
from .problems import UnsupportedMediaType
from .schemas.transfers import ExportQuery, ImportAnswer, ImportQuery

NDJSON = "application/x-ndjson"
CSV = "text/csv"
# A hash takes a quarter of a second of a core: so many are what one request can honestly wait for.
# `flask users import` takes any number.
MOST_PASSWORDS = 200
MOST_ROWS = 20_000
WORKBOOKS = frozenset(
    {
        "application/vnd.ms-excel",
        "application/vnd.ms-excel.sheet.macroenabled.12",
        "application/vnd.oasis.opendocument.spreadsheet",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
)
FILE_SCHEMA = {"schema": {"type": "string", "format": "binary"}}

blp = Blueprint(
    "transfers",
    __name__,
    url_prefix="/api/v1/users",
    description="Many users as a file, in and out.",
)


def takes_files(view: Any) -> Any:
    """Let a view take bodies of the size that files have, and say what that may be refused for."""
    view.body_limit = IMPORT_LIMIT_BYTES
    view._apidoc = {"problems": {status: WITH_A_BODY[status] for status in (413, 415, 422)}}
    return view


@blp.route("/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
@blp.arguments(ImportQuery, location="query")
@blp.response(200, ImportAnswer)
@blp.raises(MalformedFile, Busy)
@blp.doc(
    requestBody={"required": True, "content": {NDJSON: FILE_SCHEMA, CSV: FILE_SCHEMA}},
)
@takes_files
def import_users(query: dict[str, Any]) -> Any:
    """Import users from NDJSON or CSV. None that is there already is changed.

    Columns: username, email, password or password_hash, first_name, last_name, roles (a list, or
    names with `;` or `,` between), status. The other columns of an export are ignored and listed
    in `ignored_columns`. A hash is bcrypt, argon2id, Django's pbkdf2_sha256 or werkzeug's scrypt.
    Without password and hash a user is invited by mail. CSV may be separated by commas, semicolons
    or tabs and be UTF-8, UTF-16 with a byte order mark or, with `charset=` in Content-Type,
    windows-1252 or iso-8859-1. Takes 10 MiB, 20 000 rows and 200 plain passwords; roles other than
    `user` need `roles:assign`. Each row has its own result.
    """
    form, charset = _kind_of_body()
    rows, ignored = rows_of(read_body(IMPORT_LIMIT_BYTES), form, charset=charset)
    dry_run = query["dry_run"]
    batches = services().user_imports.run(rows, actor=current_actor(), dry_run=dry_run)
    results = [result for batch in batches for result in batch]
    created = sum(result.status == "created" for result in results)
    answer = {
        "dry_run": dry_run,
        "created": created,
        "failed": len(results) - created,
        "ignored_columns": ignored,
        "results": [_shown(result) for result in results],
    }
    return Response(orjson.dumps(answer), 200, mimetype="application/json")


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
            "This endpoint takes application/x-ndjson or text/csv. In Excel, save the workbook as "
            "CSV, and import that file."
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
        if len(rows) > MOST_ROWS:
            message = f"Takes at most {MOST_ROWS} rows; split the file."
            raise invalid_field("body", message, "too_many_rows")
    if sum(row.has_password for row in rows) > MOST_PASSWORDS:
        message = f"Takes at most {MOST_PASSWORDS} plain passwords; split the file."
        raise invalid_field("body", message, "too_many_passwords")
    return rows, file.ignored_columns


def _shown(result: ImportResult) -> dict[str, Any]:
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
