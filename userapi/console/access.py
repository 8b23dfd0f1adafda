"""Who may see a page, and the session of a browser.

Each page declares its access with `@requires`, `@signed_in` or `@public`, directly below its route.
A form is read only after its sender is known.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from flask import current_app, request, session

from userapi.api.access import BrowserSession, act_as_user_of, browser_session, require_live
from userapi.api.bodies import IMPORT_LIMIT_BYTES, IMPORT_SECONDS
from userapi.api.context import current_actor, request_state, services
from userapi.api.restrictions import MfaEnrollmentRequired, require_enabled, require_fresh
from userapi.authentication.refusals import AuthenticationRequired, TokenRevoked
from userapi.authentication.token_status import SessionReference
from userapi.permissions import Permission
from userapi.serving.body_limits import allow_body

from .blueprint import blp
from .cookies import MFA_TOKEN, csrf, require_store

View = TypeVar("View", bound=Callable[..., Any])

# How often the last use of a browser's session is stored.
KEEP_ALIVE_INTERVAL = timedelta(minutes=5)


class PasswordChangePending(Exception):
    """The user must change the password before any other page."""


def requires(permission: Permission) -> Callable[[View], View]:
    """Require the permission. Visitors who are not signed in are sent to the sign-in page.

    The declarations of `api.restrictions` about fresh sessions apply to pages, too.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            authenticate_by_cookie()
            current_actor().require(permission)
            require_fresh(view)
            _receive_form(view)
            return view(*args, **kwargs)

        return cast(View, _tagged(guarded, permission))

    return decorate


def signed_in(view: View) -> View:
    """Require a live session and no permission."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        authenticate_by_cookie(
            password_change_pending=hasattr(view, "open_to_password_change"),
            enrollment=hasattr(view, "open_to_enrollment"),
        )
        require_enabled(view)
        require_fresh(view)
        _receive_form(view)
        return view(*args, **kwargs)

    return cast(View, _tagged(guarded, "self"))


def public(view: View) -> View:
    """Require nothing."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _receive_form(view)
        return view(*args, **kwargs)

    return cast(View, _tagged(guarded, "public"))


def open_to_password_change(view: View) -> View:
    """Allow the page to users who must change their password."""
    view.open_to_password_change = True  # type: ignore[attr-defined]
    return view


def accepts_file(view: View) -> View:
    """Allow forms of the size of files, from users who hold the permission of the page."""
    view.body_limit = IMPORT_LIMIT_BYTES  # type: ignore[attr-defined]
    return view


def _receive_form(view: View) -> None:
    """Receive the whole body, now that its sender is known, and check the CSRF token."""
    if hasattr(view, "body_limit"):
        allow_body(request.environ, limit=view.body_limit, seconds=IMPORT_SECONDS)
    else:
        request.get_data()
    csrf.protect()


def _tagged(view: Any, access: str) -> Any:
    view.access = str(access)
    view.access_or_self = False
    return view


@blp.before_request
def _check_browser() -> None:
    if request.endpoint == "console.static":
        return
    require_store(session)
    # The guards check the CSRF token once they know the sender, because the check reads the body.
    if not hasattr(current_app.view_functions[request.endpoint or ""], "access"):
        csrf.protect()


def begin_second_step(mfa_token: str) -> None:
    """Keep the token of a sign-in until its second step, with a new id in the cookie."""
    session.clear()
    session[MFA_TOKEN] = mfa_token
    cast(Any, current_app.session_interface).regenerate(session)


def end_former_session() -> None:
    """End the session that this browser has now. Without its cookie, it would remain unused."""
    former = browser_session()
    if former is not None:
        services().log_out.end(former, actor=current_actor())


def begin_session(own: SessionReference, *, remember_me: bool) -> None:
    """Bind the browser to a new session."""
    session.clear()
    session.permanent = remember_me
    session["user_id"], session["session_id"] = str(own.user_id), str(own.session_id)
    renew_session(own)


def renew_session(own: SessionReference) -> None:
    """Bind the browser to the current version of its session, with a new id in the cookie.

    An id that an attacker set or read before becomes invalid (OWASP ASVS 5.0 7.2.4).
    """
    session["version"] = own.session_version
    session["kept_alive_at"] = services().clock.now().isoformat()
    # Flask does not declare this method of Flask-Session's interface.
    cast(Any, current_app.session_interface).regenerate(session)


def authenticate_by_cookie(
    *, password_change_pending: bool = False, enrollment: bool = False
) -> None:
    """Make the user of the cookie's session the actor of this request.

    `password_change_pending` and `enrollment` allow a session that may only change the password, or
    only add a second factor.

    Raises AuthenticationRequired, TokenRevoked, PasswordChangePending, MfaEnrollmentRequired.
    """
    own = browser_session()
    if own is None:
        raise AuthenticationRequired()
    try:
        live = require_live(own)
    except TokenRevoked:
        session.clear()
        raise
    act_as_user_of(live)
    _keep_alive(own)
    if live.must_change_password:
        if not password_change_pending:
            raise PasswordChangePending()
    elif request_state().may_only_enroll and not enrollment:
        raise MfaEnrollmentRequired()


def _keep_alive(own: BrowserSession) -> None:
    now = services().clock.now()
    if now - datetime.fromisoformat(session["kept_alive_at"]) >= KEEP_ALIVE_INTERVAL:
        services().sessions.keep_alive(own.session_id)
        session["kept_alive_at"] = now.isoformat()
