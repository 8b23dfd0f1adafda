"""The lists of bulk changes and of imports, which the worker makes."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import flash, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.accounts.bulk_actions import PERMISSIONS, BulkAction
from userapi.accounts.bulk_jobs.models import BulkJobView
from userapi.accounts.imports.job_models import ImportView
from userapi.accounts.job_columns import JobState
from userapi.accounts.job_history import JobHistory
from userapi.api.context import current_actor, services
from userapi.errors import ServiceError
from userapi.infrastructure.pagination import InvalidCursor
from userapi.permissions import Permission

from .access import requires, signed_in
from .blueprint import blp
from .bulk_words import LABELS
from .errors import page_with_errors
from .forms import read_query, typed_filters
from .list_preferences import LISTS, NOT_FILTERS, values_of_list
from .lists import position_of, requested_page
from .problem_texts import translated
from .rendering import page, redirect_to


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job in a list. `size` is the number of users or rows that it is for."""

    url: str
    what: str
    state: JobState
    done: int
    size: int
    failed: int
    created_by: str | None
    created_at: datetime
    finished_at: datetime | None


@blp.route("/users/bulk/jobs", methods=["GET"])
@signed_in
def bulk_jobs_page() -> Response:
    """Show the bulk changes by the worker that the actor may see."""
    held = current_actor().permissions
    visible = [action for action in BulkAction if PERMISSIONS[action] in held]
    return _page_of_jobs(
        "bulk-jobs",
        services().bulk_history,
        _row_of_bulk_job,
        choices=[(str(action), gettext(LABELS[action])) for action in visible],
        choice_column="action",
        visible=visible,
    )


@blp.route("/users/imports", methods=["GET"])
@requires(Permission.USERS_IMPORT)
def imports_page() -> Response:
    """Show all checks and imports of files."""
    return _page_of_jobs(
        "imports",
        services().import_history,
        _row_of_import,
        choices=[("true", gettext("check")), ("false", gettext("import"))],
        choice_column="dry_run",
        visible=(True, False),
    )


def _page_of_jobs(
    list_name: str,
    history: JobHistory[Any],
    row_of: Any,
    *,
    choices: list[tuple[str, str]],
    choice_column: str,
    visible: Collection[object],
) -> Response:
    """Show a list of jobs. `visible` are the values of `choice_column` that the actor may see."""
    shown = LISTS[list_name]
    filters = typed_filters(shown.schema, exclude=NOT_FILTERS)
    values = values_of_list(list_name, filters) | {
        "list_name": list_name,
        "choice_column": choice_column,
        "choices": [("", gettext("any")), *choices],
        "states": [("", gettext("any")), *((state, translated(state)) for state in JobState)],
    }
    try:
        query = read_query(shown.schema, source=filters)
        wanted = query.get(choice_column)
        allowed = {choice_column: [each for each in visible if wanted in (None, each)]}
        if "state" in query:
            allowed["state"] = [query["state"]]
        found = history.page(
            requested_page(page_size=values["page_size"], sort=filters.get("sort")), **allowed
        )
    except InvalidCursor:
        flash(gettext("This page of the list is out of date. This is the first page."), "info")
        return redirect_to(shown.endpoint, **filters)
    except ServiceError as error:
        return page_with_errors(error, "jobs.html", jobs=None, **values)
    total = found.total if found.total_is_exact else None
    return page(
        "jobs.html",
        jobs=found,
        rows=[row_of(job) for job in found.items],
        total=total,
        position=position_of(found, total),
        **values,
    )


def _row_of_bulk_job(job: BulkJobView) -> JobRow:
    label = gettext(LABELS[job.action])
    return JobRow(
        url=url_for("console.bulk_job_page", job_id=job.id),
        what=f"{label}: {job.role}" if job.role else label,
        state=job.state,
        done=job.done,
        size=job.users,
        failed=job.failed,
        created_by=job.created_by_name,
        created_at=job.created_at,
        finished_at=job.finished_at,
    )


def _row_of_import(job: ImportView) -> JobRow:
    return JobRow(
        url=url_for("console.import_progress", import_id=job.id),
        what=gettext("check") if job.dry_run else gettext("import"),
        state=job.state,
        done=job.done,
        size=job.rows,
        failed=job.failed,
        created_by=job.created_by_name,
        created_at=job.created_at,
        finished_at=job.finished_at,
    )
