"""The page that takes users in from a file: tried first, then meant."""

import io
from collections.abc import Iterator
from itertools import chain
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.wrappers import Response

from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.files import ENCODINGS, ImportFormat, open_text
from userapi.accounts.imports.results import ImportResult
from userapi.api.context import current_actor, services
from userapi.api.schemas.common import PageQuery
from userapi.api.transfers import rows_of, takes_long
from userapi.errors import ServiceError, invalid_field
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import Permission

from .access import accepts_file, requires
from .blueprint import blp
from .errors import page_with_errors
from .forms import read_query
from .rendering import page, redirect_to, streamed_page

# A file up to this size goes along with the page that shows the trial; a larger one is sent again.
CARRIED_BYTES = 200_000
RESULTS_SHOWN = 500
RESULTS_PER_PAGE = "50"
LATEST_SHOWN = 5
NDJSON_NAMES = (".ndjson", ".jsonl", ".json")


class ImportRun:
    """An import as it goes on: going through it does batch after batch and tells how far it is.

    The first batch is done at once: what hinders it is told by a page of its own.
    """

    def __init__(self, batches: Iterator[list[ImportResult]], rows: int) -> None:
        self._batches = chain([next(batches, [])], batches)
        self.rows = rows
        self.done = self.refused_in_all = 0
        self.refused: list[ImportResult] = []

    @property
    def created(self) -> int:
        """Return how many rows of those that are done became users, or would."""
        return self.done - self.refused_in_all

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches:
            refused = [result for result in batch if result.status != "created"]
            self.done += len(batch)
            self.refused_in_all += len(refused)
            self.refused += refused[: RESULTS_SHOWN - len(self.refused)]
            yield self.done


@blp.route("/users/import", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_page() -> Response:
    """Show the form that takes a file."""
    return page("import.html", latest=services().import_jobs.latest(LATEST_SHOWN))


@blp.route("/users/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
@accepts_file
def import_users() -> Response:
    """Try a file, or take its users in; show how far it is, and what became of each row."""
    try:
        name, raw = _file()
        form = ImportFormat.NDJSON if name.lower().endswith(NDJSON_NAMES) else ImportFormat.CSV
        charset = _charset()
        dry_run = "meant" not in request.form
        rows, ignored = rows_of(raw, form, charset=charset)
        if takes_long(rows) and not dry_run:
            job = services().import_jobs.create(
                rows, actor=current_actor(), dry_run=False, ignored_columns=ignored
            )
            return redirect_to("import_progress", import_id=job.id)
        run = ImportRun(
            services().user_imports.run(rows, actor=current_actor(), dry_run=dry_run), len(rows)
        )
    except ServiceError as error:
        return page_with_errors(error, "import.html")
    return streamed_page(
        "import.html",
        dry_run=dry_run,
        file_name=name,
        run=run,
        ignored=ignored,
        carried=(
            open_text(io.BytesIO(raw), form, charset=charset).read()
            if dry_run and len(raw) <= CARRIED_BYTES
            else None
        ),
    )


@blp.route("/users/imports/<uuid:import_id>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_progress(import_id: UUID) -> Response:
    """Show how far an import is that the worker does, and what became of its rows."""
    job = services().import_jobs.get(import_id)
    refused_only = "all" not in request.args
    part = read_query(PageQuery, page_size=RESULTS_PER_PAGE)
    results = services().import_jobs.results(
        import_id, PageRequest(**part), refused_only=refused_only
    )
    return page("import_progress.html", job=job, results=results, refused_only=refused_only)


@blp.route("/users/imports/<uuid:import_id>/cancel", methods=["POST"])
@requires(Permission.USERS_IMPORT)
def cancel_import(import_id: UUID) -> Response:
    """Cancel what is not done yet of an import."""
    services().import_jobs.cancel(import_id, actor=current_actor())
    return redirect_to("import_progress", import_id=import_id)


def _charset() -> str | None:
    """Return the encoding that was chosen for a file that does not tell its own."""
    charset = request.form.get("encoding") or None
    if "carried" in request.form or charset is None:
        return None
    if charset not in ENCODINGS:
        raise invalid_field("encoding", "Choose one of the encodings.", "invalid_choice")
    return charset


def _file() -> tuple[str, bytes]:
    """Return name and content of the file that was sent, or that the trial carried along."""
    uploaded: Any = request.files.get("file")
    if uploaded is not None and uploaded.filename:
        return uploaded.filename, uploaded.read()
    if request.form.get("carried"):
        # Browsers send every end of a line of a field as CR LF.
        content = request.form["carried"].replace("\r\n", "\n")
        return request.form.get("file_name", ""), content.encode()
    raise MalformedFile("Choose a file first.")
