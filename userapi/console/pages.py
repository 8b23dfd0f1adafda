"""What all pages have in common: who looks at them, how they are drawn, and how they refuse."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from flask import (
    Blueprint,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    session,
    stream_template,
    url_for,
)
from flask_wtf.csrf import CSRFError, generate_csrf
from markupsafe import Markup
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response

from userapi.actor import ActorType, PermissionDenied
from userapi.api import problems
from userapi.api.access import BrowserSession, browser_session, require_live
from userapi.api.bodies import IMPORT_LIMIT_BYTES, IMPORT_SECONDS
from userapi.api.context import current_actor, request_state, services
from userapi.authentication.refusals import AuthenticationRequired, TokenRevoked
from userapi.authentication.token_status import SessionReference
from userapi.errors import ServiceError
from userapi.permissions import DESCRIPTIONS, Permission
from userapi.serving.body_limits import allow_body

from .cookies import csrf, require_store

View = TypeVar("View", bound=Callable[..., Any])

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ASSET_SECONDS = 365 * 86_400
# How often the row of a browser's session is told that it is still in use.
KEPT_ALIVE_EVERY = timedelta(minutes=5)

blp = Blueprint(
    "console",
    __name__,
    url_prefix="/console",
    template_folder="templates",
    static_folder="static",
)


# Who looks at a page


def requires(permission: Permission) -> Callable[[View], View]:
    """Show the page to whoever holds the permission; others are asked to sign in, or refused."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            _sign_in_by_cookie()
            if permission not in current_actor().permissions:
                raise PermissionDenied(permission)
            _receive_form(view)
            return view(*args, **kwargs)

        return cast(View, _tagged(guarded, permission))

    return decorate


def signed_in(view: View) -> View:
    """Show the page to everybody who is signed in."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _sign_in_by_cookie(password_change_pending=hasattr(view, "open_to_password_change"))
        _receive_form(view)
        return view(*args, **kwargs)

    return cast(View, _tagged(guarded, "self"))


def public(view: View) -> View:
    """Show the page to everybody."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _receive_form(view)
        return view(*args, **kwargs)

    return cast(View, _tagged(guarded, "public"))


def open_to_password_change(view: View) -> View:
    """Mark a page as one for people who have to change their password first."""
    view.open_to_password_change = True  # type: ignore[attr-defined]
    return view


def takes_file(view: View) -> View:
    """Mark a page as one that takes a file, from people who hold its permission."""
    view.body_limit = IMPORT_LIMIT_BYTES  # type: ignore[attr-defined]
    return view


def _receive_form(view: View) -> None:
    """Receive the whole body, now that its sender is known, and check the form's token."""
    if hasattr(view, "body_limit"):
        allow_body(request.environ, limit=view.body_limit, seconds=IMPORT_SECONDS)
    else:
        request.get_data()
    csrf.protect()


class PasswordChangePending(Exception):
    """Everything but the page for the password has to wait."""


def begin_session(own: SessionReference, *, remember_me: bool) -> None:
    """Bind the browser to a session that has begun."""
    session.clear()
    session.permanent = remember_me
    session["user_id"], session["session_id"] = str(own.user_id), str(own.session_id)
    renew_session(own)


def renew_session(own: SessionReference) -> None:
    """Bind the browser to the present version of its session, under a new id of the cookie.

    One that somebody planted or learned before is worth nothing (OWASP ASVS 5.0 7.2.4).
    """
    session["version"] = own.session_version
    session["kept_alive_at"] = services().clock.now().isoformat()
    # The interface is that of Flask-Session, which Flask does not know of.
    cast(Any, current_app.session_interface).regenerate(session)


def _sign_in_by_cookie(*, password_change_pending: bool = False) -> None:
    """Make whoever the cookie stands for the actor of this request."""
    own = browser_session()
    if own is None:
        raise AuthenticationRequired()
    try:
        live = require_live(own)
    except TokenRevoked:
        session.clear()
        raise
    permissions = services().roles.graph(live.catalogue_version).effective(live.roles)
    state = request_state()
    state.live_session = live
    state.actor = replace(
        current_actor(),
        type=ActorType.USER,
        id=live.user_id,
        username=live.username,
        session_id=live.session_id,
        permissions=permissions,
    )
    _keep_alive(own)
    if live.must_change_password and not password_change_pending:
        raise PasswordChangePending()


def _keep_alive(own: BrowserSession) -> None:
    now = services().clock.now()
    if now - datetime.fromisoformat(session["kept_alive_at"]) >= KEPT_ALIVE_EVERY:
        services().sessions.keep_alive(own.session_id)
        session["kept_alive_at"] = now.isoformat()


def _tagged(view: Any, access: str) -> Any:
    view.access = str(access)
    view.access_or_self = False
    return view


# How pages are drawn


def page(template: str, status: int = 200, **values: Any) -> Response:
    """Return a page. A part of one, where a script asks for no more than that part."""
    part = request.headers.get("HX-Target") if "HX-Request" in request.headers else None
    text = render_template(f"console/{template}", part=part, **values)
    return Response(text, status, mimetype="text/html")


def growing_page(template: str, **values: Any) -> Response:
    """Return a page that a browser shows piece by piece, while it is still being drawn.

    What fails after its begin breaks it off.
    """
    response = Response(stream_template(f"console/{template}", **values), mimetype="text/html")
    response.headers["X-Accel-Buffering"] = "no"  # Or nginx would keep it until it is whole.
    return response


def done(message: str, endpoint: str, **values: Any) -> Response:
    """Return the way to the page that shows what was done, with a word about it."""
    flash(message, "success")
    return go_to(endpoint, **values)


def go_to(endpoint: str, **values: Any) -> Response:
    """Return the way to a page; a reload of that page repeats nothing."""
    return redirect(url_for(f"console.{endpoint}", **values), HTTPStatus.SEE_OTHER)


@blp.context_processor
def _for_templates() -> dict[str, Any]:
    state = request_state()
    actor, live = state.actor, state.live_session
    return {
        "actor": actor if actor.id else None,
        "csrf_field": _csrf_field,
        "asset": asset,
        "can": lambda permission: permission in actor.permissions,
        "permission_descriptions": DESCRIPTIONS,
        "settings": services().settings,
        "password_change_pending": live is not None and live.must_change_password,
    }


def _csrf_field() -> Markup:
    """Return the hidden field that every form with a POST needs."""
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


@blp.app_template_filter("moment")
def moment(value: datetime | str | None) -> str:
    """Show a time to people: in UTC, to the minute. A script shows it in the browser's own zone."""
    if value is None:
        return "never"
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


@blp.app_template_filter("day")
def day_of_year(value: date) -> str:
    """Show a day in few characters, as the days of a chart need it."""
    return f"{value:%b} {value.day}"


@blp.app_template_filter("number")
def number(value: int) -> str:
    """Show a number with thin spaces between thousands, which read alike in every country."""
    return f"{value:,}".replace(",", "\u202f")


@blp.app_template_filter("lasting")
def lasting(seconds: float) -> str:
    """Show how long something lasts, in the largest unit of which it has two."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def asset(filename: str) -> str:
    """Return the address of a static file, which changes with its content.

    So a browser keeps each for good, and none an old one after an update.
    """
    return url_for("console.static", filename=filename, v=_fingerprint(filename))


@cache
def _fingerprint(filename: str) -> str:
    content = (Path(__file__).parent / "static" / filename).read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


# How pages refuse


def refuse(error: ServiceError, template: str, **values: Any) -> Response:
    """Draw a form again, with what was typed and what was wrong with it."""
    response = problems.handle_service_error(error)
    problem = orjson.loads(response.get_data())
    errors = FieldErrors()
    for item in problem.get("errors", ()):
        errors.add(item["field"].split(".")[0], item["message"])

    def draw() -> Response:
        return page(
            template,
            response.status_code,
            problem=problem,
            errors=errors,
            form=request.form,
            **values,
        )

    drawn = draw()
    unplaced = errors.unread
    if unplaced:
        # The form has no input for these fields, so their errors are listed above it.
        problem["unplaced"] = [
            item for item in problem["errors"] if item["field"].split(".")[0] in unplaced
        ]
        drawn = draw()
    _keep_headers(response, drawn)
    return drawn


class FieldErrors(dict[str, list[str]]):
    """What is wrong with each field. Remembers which fields a template has shown."""

    def __init__(self) -> None:
        super().__init__()
        self._read: set[str] = set()

    @property
    def unread(self) -> set[str]:
        """Return the fields whose errors nobody has read so far."""
        return set(self) - self._read

    def add(self, name: str, message: str) -> None:
        """Add what is wrong with a field."""
        self.setdefault(name, []).append(message)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the messages of a field, and remember that they were read."""
        self._read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> list[str]:
        self._read.add(name)
        return super().__getitem__(name)


def flash_refusal(error: ServiceError, endpoint: str, **values: Any) -> Response:
    """Return to a page and say there why nothing was done."""
    problem = orjson.loads(problems.handle_service_error(error).get_data())
    lines = [item["message"] for item in problem.get("errors", ())] or [problem["detail"]]
    flash(" ".join(lines), "error")
    return go_to(endpoint, **values)


def _refused(response: Response) -> Response:
    """Return the page for a problem that no form is there for."""
    problem = orjson.loads(response.get_data())
    retry_after = response.headers.get("Retry-After")
    drawn = page("problem.html", response.status_code, problem=problem, retry_after=retry_after)
    _keep_headers(response, drawn)
    return drawn


def _keep_headers(response: Response, drawn: Response) -> None:
    if "Retry-After" in response.headers:
        drawn.headers["Retry-After"] = response.headers["Retry-After"]


@blp.before_request
def _check_browser() -> None:
    if request.endpoint == "console.static":
        return
    require_store(session)
    # The guards check the form's token once they know who sends it: that reads the body.
    if not hasattr(current_app.view_functions[request.endpoint or ""], "access"):
        csrf.protect()


@blp.after_request
def _add_headers(response: Response) -> Response:
    if request.endpoint == "console.static":
        response.headers["Cache-Control"] = _lifetime_of_asset(response)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _lifetime_of_asset(response: Response) -> str:
    """Return how long a static file may be kept. Not at all, where it is not the one asked for.

    While replicas are updated one after the other, the page of one asks another for its files.
    """
    filename = (request.view_args or {}).get("filename", "")
    if response.status_code in (200, 304) and request.args.get("v") == _fingerprint(filename):
        return f"public, max-age={ASSET_SECONDS}, immutable"
    return "no-cache"


@blp.errorhandler(AuthenticationRequired)
@blp.errorhandler(TokenRevoked)
def _ask_to_sign_in(error: ServiceError) -> Response:
    """Send to the sign-in page, and from there back to a page that was only looked at."""
    if isinstance(error, TokenRevoked):
        flash("Your session has ended. Please sign in again.", "info")
    onward = request.full_path.rstrip("?") if request.method == "GET" else None
    if "HX-Request" in request.headers:
        # The script would put the sign-in page in place of a part of this page.
        return Response(status=204, headers={"HX-Refresh": "true"})
    return go_to("sign_in_page", onward=onward)


@blp.errorhandler(PasswordChangePending)
def _ask_for_password(_error: PasswordChangePending) -> Response:
    flash("Set a new password before you go on.", "info")
    return go_to("password_page")


@blp.errorhandler(CSRFError)
def _refuse_forgery(_error: CSRFError) -> Response:
    """Ask to send the form again: mostly the page had been open since before a sign-in or -out."""
    flash("That page had been open for too long, so nothing was done. Please try again.", "error")
    if browser_session() is None:
        return go_to("sign_in_page", onward=request.args.get("onward"))
    return go_to("home")


@blp.errorhandler(ServiceError)
def _refuse_service_error(error: ServiceError) -> Response:
    return _refused(problems.handle_service_error(error))


@blp.errorhandler(DBAPIError)
@blp.errorhandler(PoolTimeout)
def _refuse_database_error(error: DBAPIError | PoolTimeout) -> Response:
    return _refused(problems.handle_database_error(error))


@blp.errorhandler(HTTPException)
def _refuse_http_exception(error: HTTPException) -> Response:
    return _refused(problems.handle_http_exception(error))


@blp.errorhandler(Exception)
def _refuse_unexpected(error: Exception) -> Response:
    return _refused(problems.handle_unexpected(error))


@blp.route("/<path:_rest>", methods=["GET"])
@public
def nothing(_rest: str) -> Response:
    """Show that there is no such page, with the way to all others for who is signed in."""
    if browser_session() is not None:
        _sign_in_by_cookie(password_change_pending=True)
    raise NotFound()
