"""Passkeys on pages: to sign in, as the second step, to confirm an identity, and to add them.

A script (`static/passkeys.js`) requests the options of a ceremony, and sends what the browser
returns in an ordinary form. Without scripts, the buttons are not shown.
"""

from typing import Any

from flask import request, session
from flask_babel import gettext
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.responses import as_json
from userapi.api.restrictions import enabled_by, fresh, open_to_enrollment
from userapi.api.schemas.passkeys import PasskeyAddition, PasskeySignIn
from userapi.errors import ServiceError
from userapi.factors.errors import MfaTokenInvalid
from userapi.factors.passkey_errors import PasskeyUnknown
from userapi.infrastructure import strict_json
from userapi.sessions.models import SessionKind

from .access import (
    begin_session,
    end_former_session,
    open_to_password_change,
    public,
    renew_session,
    signed_in,
)
from .blueprint import blp
from .confirmation import ask_to_confirm_again
from .cookies import MFA_TOKEN
from .errors import flash_error, page_with_errors
from .forms import read_form
from .onward import path_in_console
from .rendering import flash_success, redirect_to
from .second_step import ask_again, start_again
from .security import recovery_codes_page


@blp.route("/sign-in/passkey/options", methods=["POST"])
@public
def passkey_sign_in_options() -> Response:
    """Return the options to sign in with a passkey. Nothing is stored."""
    return as_json(services().passkey_sign_in.options())


@blp.route("/sign-in/passkey", methods=["POST"])
@public
def passkey_sign_in() -> Response:
    """Sign in with a passkey, by the same rules as POST /api/v1/auth/login/passkey."""
    onward = path_in_console(request.args.get("onward"))
    try:
        body = read_form(PasskeySignIn, credential=_credential())
        pair = services().passkey_sign_in.with_credential(
            body["credential"],
            remember_me=body["remember_me"],
            actor=current_actor(),
            kind=SessionKind.BROWSER,
        )
    except PasskeyUnknown as error:
        unknown = {
            "rpId": services().settings.webauthn_rp_id,
            "credentialId": body["credential"]["id"],
        }
        return page_with_errors(error, "sign_in.html", onward=onward, unknown_passkey=unknown)
    except ServiceError as error:
        return page_with_errors(error, "sign_in.html", onward=onward)
    end_former_session()
    begin_session(pair, remember_me=body["remember_me"])
    return redirect(onward, 303) if onward else redirect_to("home")


@blp.route("/sign-in/second-step/passkey/options", methods=["POST"])
@public
def second_step_passkey_options() -> Response:
    """Return the options to complete a sign-in with a passkey of its user."""
    return as_json(services().second_step.passkey_options(session.get(MFA_TOKEN, "")))


@blp.route("/sign-in/second-step/passkey", methods=["POST"])
@public
def complete_sign_in_with_passkey() -> Response:
    """Complete a sign-in, by the same rules as POST /api/v1/auth/login/mfa."""
    onward = path_in_console(request.args.get("onward"))
    token, use_case = session.get(MFA_TOKEN, ""), services().second_step
    try:
        sign_in = use_case.find(token)
        result = use_case.with_credential(
            token,
            read_form(PasskeySignIn, credential=_credential())["credential"],
            actor=current_actor(),
            kind=SessionKind.BROWSER,
        )
    except MfaTokenInvalid:
        return start_again(onward)
    except ServiceError as error:
        return ask_again(error, token, onward)
    begin_session(result.pair, remember_me=sign_in.remember_me)
    return redirect(onward, 303) if onward else redirect_to("home")


@blp.route("/confirm/passkey/options", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
def confirm_passkey_options() -> Response:
    """Return the options to confirm with a passkey of the user."""
    return as_json(services().step_up.passkey_options(current_session()))


@blp.route("/confirm/passkey", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
def confirm_with_passkey() -> Response:
    """Authenticate again, by the same rules as POST /api/v1/auth/step-up."""
    try:
        pair = services().step_up.with_credential(
            current_session(),
            read_form(PasskeySignIn, credential=_credential())["credential"],
            actor=current_actor(),
        )
    except ServiceError as error:
        return ask_to_confirm_again(error)
    renew_session(pair)
    onward = path_in_console(request.args.get("onward"))
    return redirect(onward, 303) if onward else redirect_to("security_page")


def _require_passkeys() -> None:
    services().passkey_registration.require_available()


@blp.route("/security/passkeys/options", methods=["POST"])
@signed_in
@enabled_by(_require_passkeys)
@fresh
@open_to_enrollment
def passkey_options() -> Response:
    """Return the options to create a passkey for the user."""
    live = current_session()
    return as_json(
        services().passkey_registration.options(live.user_id, session_id=live.session_id)
    )


@blp.route("/security/passkeys", methods=["POST"])
@signed_in
@enabled_by(_require_passkeys)
@open_to_enrollment
def add_passkey() -> Response:
    """Add a passkey. With the first factor, show recovery codes; all other sessions end."""
    try:
        body = read_form(PasskeyAddition, credential=_credential())
        added = services().passkey_enrollment.add(
            current_session(),
            body["credential"],
            name=body.get("name"),
            actor=current_actor(),
        )
    except ServiceError as error:
        return flash_error(error, "security_page")
    renew_session(added.pair)
    if added.recovery_codes:
        return recovery_codes_page(added.recovery_codes, first=True)
    return flash_success(gettext("The passkey was added."), "security_page")


def _credential() -> Any:
    """Return the JSON of the form; a text that is no JSON unchanged: the schema rejects it."""
    text = request.form.get("credential", "")
    try:
        return strict_json.loads(text)
    except (strict_json.NotStrictJson, RecursionError):
        return text
