"""Users as files: POST /api/v1/users/import and GET /api/v1/users/export."""

import io
from typing import Any

import orjson
from flask import Response

from userapi.accounts.import_files import ImportFormat, MalformedFile, Row, read_rows
from userapi.accounts.imports import ImportResult
from userapi.accounts.search import UserFilter
from userapi.errors import invalid_field
from userapi.passwords.gate import Busy
from userapi.permissions import Permission

from .access import requires
from .blueprint import WITH_A_BODY, Blueprint
from .bodies import IMPORT_LIMIT_BYTES, read_body, require_media_type
from .context import current_actor, services
from .exports import export_response
from .schemas.transfers import ExportQuery, ImportAnswer, ImportQuery

NDJSON = "application/x-ndjson"
CSV = "text/csv"
# A hash takes a quarter of a second of a core: so many are what one request can honestly wait for.
# `flask users import` takes any number.
MOST_PASSWORDS = 200
MOST_ROWS = 20_000
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
    names with `;` between), status. A hash is bcrypt, argon2id, Django's pbkdf2_sha256 or
    werkzeug's scrypt. Without password and hash a user is invited by mail. Takes 10 MiB, 20 000
    rows and 200 plain passwords; roles other than `user` need `roles:assign`. Each row has its own
    result.
    """
    form = ImportFormat.CSV if require_media_type(NDJSON, CSV) == CSV else ImportFormat.NDJSON
    rows = rows_of(read_body(IMPORT_LIMIT_BYTES), form)
    dry_run = query["dry_run"]
    batches = services().user_imports.run(rows, actor=current_actor(), dry_run=dry_run)
    results = [result for batch in batches for result in batch]
    created = sum(result.status == "created" for result in results)
    answer = {
        "dry_run": dry_run,
        "created": created,
        "failed": len(results) - created,
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
    form = query.pop("format")
    pieces = services().user_exports.pieces(UserFilter(**query), form, actor=current_actor())
    return export_response(pieces, form=form, name="users", now=services().clock.now())


def rows_of(raw: bytes, form: ImportFormat) -> list[Row]:
    """Return all rows of a file: what makes it unreadable is found before any is taken.

    Raises MalformedFile, Invalid for more than one request takes.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise MalformedFile("The file is not UTF-8.") from exc
    lines = io.StringIO(text, newline="" if form is ImportFormat.CSV else "\n")
    rows: list[Row] = []
    for row in read_rows(lines, form):
        rows.append(row)
        if len(rows) > MOST_ROWS:
            message = f"Takes at most {MOST_ROWS} rows; split the file."
            raise invalid_field("body", message, "too_many_rows")
    if sum(row.has_password for row in rows) > MOST_PASSWORDS:
        message = f"Takes at most {MOST_PASSWORDS} plain passwords; split the file."
        raise invalid_field("body", message, "too_many_passwords")
    return rows


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
