"""Pages of imports: the form, the result, and the progress of an import by the worker."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.wrappers import Response

from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.files import ENCODINGS, ImportFormat, open_text
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.imports.rows import Row, require_step_up_for
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

# The page of a dry run contains a file up to this size. A larger file must be selected again.
MAX_CARRIED_BYTES = 200_000
MAX_RESULTS = 500
RESULTS_PER_PAGE = "50"
MAX_LATEST = 5
NDJSON_NAMES = (".ndjson", ".jsonl", ".json")


class ImportRun:
    """A running import. Iterating imports batch after batch and yields the number of rows.

    The constructor imports the first batch, so that an error in it has a page of its own.
    """

    def __init__(self, batches: Iterator[list[ImportResult]], rows: int) -> None:
        self._batches = chain([next(batches, [])], batches)
        self.rows = rows
        self.done = self.rejected_count = 0
        self.rejected: list[ImportResult] = []

    @property
    def created(self) -> int:
        """Return the number of created users; in a dry run, that would be created."""
        return self.done - self.rejected_count

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches:
            rejected = [result for result in batch if result.status != "created"]
            self.done += len(batch)
            self.rejected_count += len(rejected)
            self.rejected += rejected[: MAX_RESULTS - len(self.rejected)]
            yield self.done


@blp.route("/users/import", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_page() -> Response:
    """Show the form to import a file."""
    return page("import.html", latest=services().import_jobs.latest(MAX_LATEST))


@blp.route("/users/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
@accepts_file
def import_users() -> Response:
    """Check or import a file. Shows the progress and the result of each row."""
    dry_run = "meant" not in request.form
    try:
        file = _submitted_file()
        rows, ignored = rows_of(file.content, file.format, charset=file.charset)
        require_step_up_for(rows, current_actor())
        if takes_long(rows) and not dry_run:
            return _import_in_worker(rows, ignored)
        batches = services().user_imports.run(rows, actor=current_actor(), dry_run=dry_run)
        run = ImportRun(batches, len(rows))
    except ServiceError as error:
        return page_with_errors(error, "import.html")
    carried = file.carried_text() if dry_run else None
    return streamed_page(
        "import.html",
        dry_run=dry_run,
        file_name=file.name,
        run=run,
        ignored=ignored,
        carried=carried,
    )


@blp.route("/users/imports/<uuid:import_id>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_progress(import_id: UUID) -> Response:
    """Show the progress of an import by the worker, and the results of its rows."""
    job = services().import_jobs.get(import_id)
    rejected_only = "all" not in request.args
    part = read_query(PageQuery, page_size=RESULTS_PER_PAGE)
    results = services().import_jobs.results(
        import_id, PageRequest(**part), refused_only=rejected_only
    )
    return page("import_progress.html", job=job, results=results, rejected_only=rejected_only)


@blp.route("/users/imports/<uuid:import_id>/cancel", methods=["POST"])
@requires(Permission.USERS_IMPORT)
def cancel_import(import_id: UUID) -> Response:
    """Cancel the remaining rows of an import."""
    services().import_jobs.cancel(import_id, actor=current_actor())
    return redirect_to("import_progress", import_id=import_id)


@dataclass(frozen=True, slots=True)
class SubmittedFile:
    """A file in a form, and the selected encoding."""

    name: str
    content: bytes
    charset: str | None

    @property
    def format(self) -> ImportFormat:
        """Return the format that the name of the file shows; CSV by default."""
        is_ndjson = self.name.lower().endswith(NDJSON_NAMES)
        return ImportFormat.NDJSON if is_ndjson else ImportFormat.CSV

    def carried_text(self) -> str | None:
        """Return the text for the page of a dry run; None if it is too large."""
        if len(self.content) > MAX_CARRIED_BYTES:
            return None
        return open_text(io.BytesIO(self.content), self.format, charset=self.charset).read()


def _submitted_file() -> SubmittedFile:
    """Return the uploaded file, or the file in the page of a dry run."""
    uploaded: Any = request.files.get("file")
    if uploaded is not None and uploaded.filename:
        return SubmittedFile(uploaded.filename, uploaded.read(), _charset())
    if request.form.get("carried"):
        # Browsers send line breaks of a field as CR LF.
        content = request.form["carried"].replace("\r\n", "\n")
        return SubmittedFile(request.form.get("file_name", ""), content.encode(), _charset())
    raise MalformedFile("Choose a file first.")


def _charset() -> str | None:
    """Return the selected encoding, for a file without a byte order mark."""
    charset = request.form.get("encoding") or None
    if "carried" in request.form or charset is None:
        return None
    if charset not in ENCODINGS:
        raise invalid_field("encoding", "Choose one of the encodings.", "invalid_choice")
    return charset


def _import_in_worker(rows: Sequence[Row], ignored_columns: tuple[str, ...]) -> Response:
    job = services().import_jobs.create(
        rows, actor=current_actor(), dry_run=False, ignored_columns=ignored_columns
    )
    return redirect_to("import_progress", import_id=job.id)
