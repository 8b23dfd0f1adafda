"""Errors on pages: with the fields of a form, as a message, or as a separate page."""

from typing import Any

from flask import current_app, flash, request, url_for
from flask_babel import gettext
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response

from userapi.actor import InsufficientUserAuthentication
from userapi.api import problems
from userapi.api.access import browser_session
from userapi.api.restrictions import MfaEnrollmentRequired
from userapi.authentication.refusals import AuthenticationRequired, TokenRevoked
from userapi.errors import ServiceError

from .access import PasswordChangePending, authenticate_by_cookie, public
from .blueprint import blp
from .cookies import PREFIX
from .problem_texts import translated_problem
from .rendering import page, redirect_to


class FieldErrors(dict[str, list[str]]):
    """The errors of each field. Records which fields a template has shown."""

    def __init__(self) -> None:
        super().__init__()
        self._read: set[str] = set()

    @property
    def unread(self) -> set[str]:
        """Return the fields whose errors the template has not read."""
        return set(self) - self._read

    def add(self, name: str, message: str) -> None:
        """Add an error of a field."""
        self.setdefault(name, []).append(message)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the messages of a field, and record that they were read."""
        self._read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> list[str]:
        self._read.add(name)
        return super().__getitem__(name)


def page_with_errors(error: ServiceError, template: str, **values: Any) -> Response:
    """Return a form with the submitted values and their errors."""
    response = problems.handle_service_error(error)
    problem = translated_problem(response)
    errors = FieldErrors()
    for item in problem.get("errors", ()):
        errors.add(item["field"].split(".")[0], item["message"])

    def render() -> Response:
        return page(
            template,
            response.status_code,
            problem=problem,
            errors=errors,
            form=request.form,
            **values,
        )

    rendered = render()
    unplaced = errors.unread
    if unplaced:
        # The form has no input for these fields, so their errors are listed above it.
        problem["unplaced"] = [
            item for item in problem["errors"] if item["field"].split(".")[0] in unplaced
        ]
        rendered = render()
    _copy_retry_after(response, rendered)
    return rendered


def flash_error(error: ServiceError, endpoint: str, **values: Any) -> Response:
    """Redirect to a page that shows why nothing was done."""
    flash(error_text(error), "error")
    return redirect_to(endpoint, **values)


def error_text(error: ServiceError) -> str:
    """Return why nothing was done, in the language of the viewer."""
    problem = translated_problem(problems.handle_service_error(error))
    lines = [item["message"] for item in problem.get("errors", ())] or [problem["detail"]]
    return " ".join(lines)


def _problem_page(response: Response) -> Response:
    """Return the page for a problem that does not belong to a form."""
    problem = translated_problem(response)
    retry_after = response.headers.get("Retry-After")
    rendered = page("problem.html", response.status_code, problem=problem, retry_after=retry_after)
    _copy_retry_after(response, rendered)
    return rendered


def _copy_retry_after(response: Response, rendered: Response) -> None:
    if "Retry-After" in response.headers:
        rendered.headers["Retry-After"] = response.headers["Retry-After"]


@blp.errorhandler(AuthenticationRequired)
@blp.errorhandler(TokenRevoked)
def _redirect_to_sign_in(error: ServiceError) -> Response:
    """Redirect to the sign-in page, which leads back to the requested page after a GET."""
    if isinstance(error, TokenRevoked):
        flash(gettext("Your session has ended. Sign in again."), "info")
    onward = request.full_path.rstrip("?") if request.method == "GET" else None
    if "HX-Request" in request.headers:
        # The script would insert the sign-in page into a part of this page.
        return Response(status=204, headers={"HX-Refresh": "true"})
    return redirect_to("sign_in_page", onward=onward)


@blp.errorhandler(PasswordChangePending)
def _redirect_to_password(_error: PasswordChangePending) -> Response:
    flash(gettext("Set a new password before you continue."), "info")
    return redirect_to("password_page")


@blp.errorhandler(MfaEnrollmentRequired)
def _redirect_to_security(_error: MfaEnrollmentRequired) -> Response:
    flash(gettext("Your role requires a second factor. Add one before you continue."), "info")
    return redirect_to("security_page")


@blp.errorhandler(InsufficientUserAuthentication)
def _redirect_to_confirmation(_error: InsufficientUserAuthentication) -> Response:
    """Redirect to the page that authenticates again, and leads back to a page with GET.

    What was typed is not sent again by itself.
    """
    if request.method == "GET":
        return redirect_to("confirm_page", onward=request.full_path.rstrip("?"))
    flash(
        gettext("Nothing was changed yet. Repeat the action after you have confirmed who you are."),
        "info",
    )
    return redirect_to("confirm_page", onward=_page_of(request.path))


def _page_of(path: str) -> str:
    """Return the path of the page that has the form of a path: itself or one above it."""
    adapter = current_app.url_map.bind("")
    while path.count("/") > PREFIX.count("/") - 1:
        endpoint, _ = adapter.match(path, method="GET")
        if endpoint != "console.nothing":
            return path
        path = path.rpartition("/")[0]
    return url_for("console.home")


@blp.errorhandler(CSRFError)
def _reject_forgery(_error: CSRFError) -> Response:
    """Redirect with a message. Most often the page was opened before a sign-in or sign-out."""
    flash(gettext("This page was open for too long. Nothing was changed. Try again."), "error")
    if browser_session() is None:
        return redirect_to("sign_in_page", onward=request.args.get("onward"))
    return redirect_to("home")


@blp.errorhandler(ServiceError)
def _handle_service_error(error: ServiceError) -> Response:
    return _problem_page(problems.handle_service_error(error))


@blp.errorhandler(DBAPIError)
@blp.errorhandler(PoolTimeout)
def _handle_database_error(error: DBAPIError | PoolTimeout) -> Response:
    return _problem_page(problems.handle_database_error(error))


@blp.errorhandler(HTTPException)
def _handle_http_exception(error: HTTPException) -> Response:
    return _problem_page(problems.handle_http_exception(error))


@blp.errorhandler(Exception)
def _handle_unexpected(error: Exception) -> Response:
    return _problem_page(problems.handle_unexpected(error))


@blp.route("/<path:_rest>", methods=["GET"])
@public
def nothing(_rest: str) -> Response:
    """Return 404 with the navigation for users who are signed in."""
    if browser_session() is not None:
        authenticate_by_cookie(password_change_pending=True)
    raise NotFound()
