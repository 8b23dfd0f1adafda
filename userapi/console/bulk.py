"""Pages of bulk changes: the confirmation, the results, and jobs of the worker.

Selected users of one page are changed within the request. All users that match the filters are
changed by the worker, and a page shows the progress.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from flask import request
from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.accounts.bulk_actions import PERMISSIONS, WITH_A_ROLE, BulkAction
from userapi.api.context import current_actor, services
from userapi.api.schemas.users import BulkRequest, UserQuery
from userapi.errors import ServiceError, invalid_field

from .access import signed_in
from .blueprint import blp
from .bulk_words import CONSEQUENCES, LABELS
from .errors import flash_error, page_with_errors
from .forms import read_form
from .list_preferences import NOT_FILTERS
from .lists import as_query, filters_in_form, requested_page
from .rendering import page, redirect_to
from .user_filters import filters_in_words, user_filter

FAILURES_PER_PAGE = 50


class MatchingRequest(BulkRequest):
    """An action for all users that match."""

    class Meta:
        """Excluded, because the filters select the users."""

        exclude = ("user_ids",)


def possible_actions() -> list[tuple[BulkAction, str]]:
    """Return the bulk actions that the actor may use, with their names."""
    held = current_actor().permissions
    return [(a, gettext(label)) for a, label in LABELS.items() if PERMISSIONS[a] in held]


@blp.route("/users/bulk", methods=["POST"])
@signed_in
def confirm_bulk() -> Response:
    """Show whom the action would change, and ask for its details. Changes nothing."""
    filters = _filters()
    try:
        action = _chosen_action()
        current_actor().require(PERMISSIONS[action])
        if not _is_for_all() and not request.form.getlist("user_ids"):
            raise invalid_field("user_ids", gettext("Select at least one user first."))
        values = _question(action, filters)
    except ServiceError as error:
        return flash_error(error, "users_page", **filters)
    return page("bulk.html", **values)


@blp.route("/users/bulk/run", methods=["POST"])
@signed_in
def run_bulk() -> Response:
    """Change the selected users and show the result for each, or store a job for all."""
    filters = _filters()
    try:
        action = _chosen_action()
        current_actor().require(PERMISSIONS[action])
    except ServiceError as error:
        return flash_error(error, "users_page", **filters)
    try:
        if _is_for_all():
            return _start_job(filters)
        body = read_form(BulkRequest)
        names = _names(body["user_ids"])
        results = services().bulk.run(**body, actor=current_actor())
    except ServiceError as error:
        if _is_for_all() or request.form.getlist("user_ids"):
            return page_with_errors(error, "bulk.html", **_question(action, filters))
        return flash_error(error, "users_page", **filters)
    failed = [result for result in results if result.code is not None]
    return page(
        "bulk_results.html",
        action=action,
        label=gettext(LABELS[action]),
        role=body.get("role"),
        reason=body.get("reason"),
        names=names,
        failed=failed,
        changed=[result for result in results if result.code is None],
        filters=filters,
        filter_query=as_query(filters),
    )


@blp.route("/users/bulk/jobs/<uuid:job_id>", methods=["GET"])
@signed_in
def bulk_job_page(job_id: UUID) -> Response:
    """Show the progress of a bulk change, and whom it could not change."""
    job = services().bulk_jobs.get(job_id, actor=current_actor())
    failures = services().bulk_jobs.failures(job_id, requested_page(page_size=FAILURES_PER_PAGE))
    return page(
        "bulk_job.html",
        job=job,
        label=gettext(LABELS[job.action]),
        failures=failures,
        names=_names([failure.id for failure in failures.items]),
    )


@blp.route("/users/bulk/jobs/<uuid:job_id>/cancel", methods=["POST"])
@signed_in
def cancel_bulk_job(job_id: UUID) -> Response:
    """Cancel the remaining users of a bulk change."""
    services().bulk_jobs.cancel(job_id, actor=current_actor())
    return redirect_to("bulk_job_page", job_id=job_id)


@blp.route("/users/bulk/jobs/<uuid:job_id>/retry", methods=["POST"])
@signed_in
def retry_bulk_job(job_id: UUID) -> Response:
    """Retry the users that a bulk change could not change."""
    services().bulk_jobs.get(job_id, actor=current_actor())
    try:
        job = services().bulk_jobs.retry(job_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "bulk_job_page", job_id=job_id)
    return redirect_to("bulk_job_page", job_id=job.id)


def _start_job(filters: Mapping[str, str]) -> Response:
    expected = request.form.get("expected", "")
    job = services().bulk_jobs.create(
        **read_form(MatchingRequest),
        wanted=user_filter(filters),
        expected=int(expected) if expected.isascii() and expected.isdecimal() else -1,
        actor=current_actor(),
    )
    return redirect_to("bulk_job_page", job_id=job.id)


def _question(action: BulkAction, filters: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the confirmation page. Raises Invalid for ids or filters."""
    selected: Sequence[UUID] = ()
    if not _is_for_all():
        selected = _selected_ids()
    names = _names(selected)
    wanted = user_filter(filters)
    return {
        "action": action,
        "label": gettext(LABELS[action]),
        "consequence": gettext(CONSEQUENCES[action]),
        "roles": _role_options() if action in WITH_A_ROLE else None,
        "role": request.form.get("role"),
        "users": [(user_id, names[user_id]) for user_id in dict.fromkeys(selected)],
        "count": len(selected) or services().bulk_jobs.count_matching(wanted),
        "filters": filters,
        "conditions": filters_in_words(filters),
        "filter_query": as_query(filters),
    }


def _role_options() -> list[tuple[str, str]]:
    names = sorted(services().roles.graph().names)
    return [("", gettext("Choose a role …")), *((name, name) for name in names)]


def _selected_ids() -> list[UUID]:
    """Return the selected users. Raises Invalid."""
    ids: list[UUID] = read_form(SelectedUsers)["user_ids"]
    return ids


class SelectedUsers(BulkRequest):
    """The selected users, before the details of the action are known."""

    class Meta:
        """Only the users: the page requests the rest."""

        fields = ("user_ids",)


def _is_for_all() -> bool:
    return request.form.get("selected") == "all"


def _filters() -> dict[str, str]:
    return filters_in_form(UserQuery, exclude=NOT_FILTERS)


def _chosen_action() -> BulkAction:
    """Return the action of the form. Raises Invalid."""
    try:
        return BulkAction(request.form.get("action", ""))
    except ValueError as exc:
        message = gettext("Choose one of the actions.")
        raise invalid_field("action", message, "invalid_choice") from exc


def _names(user_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return user names by id. Deleted users have their id as the name."""
    names = services().user_search.names(user_ids) if user_ids else {}
    return {user_id: names.get(user_id, str(user_id)) for user_id in user_ids}
