"""The second step of a sign-in: the page after the password of an account with second factors."""

from typing import Any

from flask import flash, request, session
from flask_babel import gettext, ngettext
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.schemas.mfa import AppCode
from userapi.errors import ServiceError
from userapi.factors.errors import MfaTokenInvalid
from userapi.sessions.models import SessionKind
from userapi.sessions.pending_sign_ins import OpenSignIn

from .access import begin_session, public
from .blueprint import blp
from .cookies import MFA_TOKEN
from .errors import page_with_errors
from .forms import read_form
from .onward import path_in_console
from .rendering import page, redirect_to

TEMPLATE = "second_step.html"


@blp.route("/sign-in/second-step", methods=["GET"])
@public
def second_step_page() -> Response:
    """Show the form for a code, if the password was accepted before."""
    onward = path_in_console(request.args.get("onward"))
    try:
        sign_in = services().second_step.find(session.get(MFA_TOKEN, ""))
    except MfaTokenInvalid:
        return start_again(onward)
    return page(TEMPLATE, onward=onward, **_shown(sign_in))


@blp.route("/sign-in/second-step", methods=["POST"])
@public
def complete_sign_in() -> Response:
    """Sign in with a code, by the same rules as POST /api/v1/auth/login/mfa."""
    onward = path_in_console(request.args.get("onward"))
    token = session.get(MFA_TOKEN, "")
    try:
        sign_in = services().second_step.find(token)
        result = services().second_step.with_code(
            token,
            read_form(AppCode)["code"],
            actor=current_actor(),
            kind=SessionKind.BROWSER,
        )
    except MfaTokenInvalid:
        return start_again(onward)
    except ServiceError as error:
        return ask_again(error, token, onward)
    begin_session(result.pair, remember_me=sign_in.remember_me)
    if result.recovery_codes_left is not None:
        flash(_codes_left(result.recovery_codes_left), "info")
    return redirect(onward, 303) if onward else redirect_to("home")


def ask_again(error: ServiceError, token: str, onward: str | None) -> Response:
    """Show the form with an error, or the first step if the sign-in has ended."""
    try:
        sign_in = services().second_step.find(token)
    except MfaTokenInvalid:
        return start_again(onward)
    return page_with_errors(error, TEMPLATE, onward=onward, **_shown(sign_in))


def start_again(onward: str | None) -> Response:
    """Show the first step, because the sign-in has ended."""
    session.pop(MFA_TOKEN, None)
    flash(gettext("This sign-in has ended. Start again with your password."), "error")
    return redirect_to("sign_in_page", onward=onward)


def _shown(sign_in: OpenSignIn) -> dict[str, Any]:
    methods = services().factor_list.methods_of(sign_in.user_id)
    return {"tries_left": sign_in.tries_left, "methods": methods}


def _codes_left(left: int) -> str:
    text: str = ngettext(
        "You used a recovery code. %(num)d is left.",
        "You used a recovery code. %(num)d are left.",
        left,
    )
    return text
