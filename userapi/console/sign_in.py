"""Pages to sign in, sign out and sign up."""

from flask import request, session
from flask_babel import gettext
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from userapi.accounts.errors import RegistrationDisabled
from userapi.api.access import browser_session
from userapi.api.context import current_actor, services
from userapi.api.schemas.auth import Login
from userapi.api.schemas.users import Registration
from userapi.api.users import new_user
from userapi.errors import ServiceError
from userapi.factors.errors import MfaRequired
from userapi.sessions.models import SessionKind

from .access import begin_second_step, begin_session, end_former_session, public
from .blueprint import blp
from .errors import page_with_errors
from .forms import read_form
from .languages import browser_preferences
from .onward import path_in_console
from .rendering import flash_success, page, redirect_to


@blp.route("/sign-in", methods=["GET"])
@public
def sign_in_page() -> Response:
    """Show the form to sign in."""
    if browser_session() is not None:
        return redirect_to("home")
    return page("sign_in.html", onward=path_in_console(request.args.get("onward")))


@blp.route("/sign-in", methods=["POST"])
@public
def sign_in() -> Response:
    """Sign in, by the same rules as POST /api/v1/auth/login."""
    onward = path_in_console(request.args.get("onward"))
    try:
        body = read_form(Login)
        tokens = services().log_in.with_password(
            body["username"],
            body["password"],
            remember_me=body["remember_me"],
            actor=current_actor(),
            kind=SessionKind.BROWSER,
        )
    except MfaRequired as error:
        end_former_session()
        begin_second_step(error.extra["mfa_token"])
        return redirect_to("second_step_page", onward=onward)
    except ServiceError as error:
        return page_with_errors(error, "sign_in.html", onward=onward)
    end_former_session()
    begin_session(tokens, remember_me=body["remember_me"])
    return redirect(onward, 303) if onward else redirect_to("home")


@blp.route("/sign-out", methods=["POST"])
@public
def sign_out() -> Response:
    """End the session of this browser. Can be repeated."""
    own = browser_session()
    if own is not None:
        services().log_out.end(own, actor=current_actor())
    session.clear()
    return flash_success(gettext("You are signed out."), "sign_in_page")


@blp.route("/sign-up", methods=["GET"])
@public
def sign_up_page() -> Response:
    """Show the form to register, if registration is enabled."""
    if not services().settings.feature_user_registration:
        raise RegistrationDisabled()
    return page("sign_up.html")


@blp.route("/sign-up", methods=["POST"])
@public
def sign_up() -> Response:
    """Register, by the same rules as POST /api/v1/auth/register.

    The profile gets the language and the time zone of the browser, for mails.
    """
    try:
        body = read_form(Registration, **browser_preferences())
        services().registration.register(new_user(body), actor=current_actor())
    except ServiceError as error:
        return page_with_errors(error, "sign_up.html")
    if services().settings.feature_email_verification:
        return page("sign_up_sent.html")
    return flash_success(gettext("Your account was created. Sign in."), "sign_in_page")
