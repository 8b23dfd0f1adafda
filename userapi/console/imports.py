"""Pages of imports: the file, its check, and the progress and result of the import.

The worker checks every file before anything is imported. The page of the check then offers to
import its rows, so no file has to be chosen twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import request
from flask_babel import gettext
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.files import ENCODINGS, ImportFormat
from userapi.accounts.imports.job_models import ImportView
from userapi.accounts.imports.rows import require_step_up_for
from userapi.api.context import current_actor, services
from userapi.api.exports import export_response
from userapi.api.transfers import rows_of
from userapi.errors import ServiceError, invalid_field
from userapi.infrastructure.export import ExportFormat
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import Permission

from .access import accepts_file, requires
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .import_templates import TEMPLATES
from .lists import requested_page
from .rendering import page, redirect_to

RESULTS_PER_PAGE = 50
MAX_LATEST = 5
NDJSON_NAMES = (".ndjson", ".jsonl", ".json")


@blp.route("/users/import", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_page() -> Response:
    """Show the form to choose a file."""
    return page("import.html", latest=_latest())


@blp.route("/users/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
@accepts_file
def check_import() -> Response:
    """Store a file for the worker to check. Changes no user."""
    try:
        file = _submitted_file()
        rows, ignored = rows_of(file.content, file.format, charset=file.charset)
        require_step_up_for(rows, current_actor())
        job = services().import_jobs.create(
            rows, actor=current_actor(), dry_run=True, ignored_columns=ignored
        )
    except ServiceError as error:
        return page_with_errors(error, "import.html", latest=_latest())
    return redirect_to("import_progress", import_id=job.id)


@blp.route("/users/import/template.<form>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_template(form: str) -> Response:
    """Download a file with the columns and two rows as an example."""
    if form not in list(ExportFormat):
        raise NotFound()
    chosen = ExportFormat(form)
    return export_response(
        iter([TEMPLATES[chosen].encode()]),
        form=chosen,
        name="users-template",
        now=services().clock.now(),
        bom=True,
    )


@blp.route("/users/imports/<uuid:import_id>", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def import_progress(import_id: UUID) -> Response:
    """Show the progress of a check or an import, and the results of its rows."""
    jobs = services().import_jobs
    job = jobs.get(import_id)
    shows_all = "all" in request.args
    wanted = requested_page(page_size=RESULTS_PER_PAGE)
    results: Any = jobs.results if shows_all else jobs.refused
    return page(
        "import_progress.html",
        job=job,
        rows=results(import_id, wanted),
        shows_all=shows_all,
        can_be_imported=jobs.can_be_imported(job),
    )


@blp.route("/users/imports/<uuid:import_id>/import", methods=["POST"])
@requires(Permission.USERS_IMPORT)
def import_checked(import_id: UUID) -> Response:
    """Start the import of the rows of a check by the worker."""
    try:
        job = services().import_jobs.import_checked(import_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "import_progress", import_id=import_id)
    return redirect_to("import_progress", import_id=job.id)


@blp.route("/users/imports/<uuid:import_id>/refused.csv", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def refused_rows(import_id: UUID) -> Response:
    """Download the refused rows, to correct and import them."""
    return export_response(
        services().import_jobs.refused_file(import_id),
        form=ExportFormat.CSV,
        name="refused-rows",
        now=services().clock.now(),
        bom=True,
    )


@blp.route("/users/imports/<uuid:import_id>/cancel", methods=["POST"])
@requires(Permission.USERS_IMPORT)
def cancel_import(import_id: UUID) -> Response:
    """Cancel the remaining rows of a check or an import."""
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


def _latest() -> Sequence[ImportView]:
    return services().import_history.page(PageRequest(page_size=MAX_LATEST)).items


def _submitted_file() -> SubmittedFile:
    uploaded: Any = request.files.get("file")
    if uploaded is None or not uploaded.filename:
        raise MalformedFile("Choose a file first.")
    return SubmittedFile(uploaded.filename, uploaded.read(), _charset())


def _charset() -> str | None:
    """Return the selected encoding, for a file without a byte order mark."""
    charset = request.form.get("encoding") or None
    if charset is not None and charset not in ENCODINGS:
        message = gettext("Choose one of the encodings.")
        raise invalid_field("encoding", message, "invalid_choice")
    return charset
