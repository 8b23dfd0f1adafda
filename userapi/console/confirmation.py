"""The page that authenticates a signed-in user again, for what requires a fresh session."""

from typing import Any

from flask import request
from flask_babel import gettext
from marshmallow import Schema
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.restrictions import open_to_enrollment
from userapi.api.schemas.mfa import AppCode
from userapi.api.schemas.proofs import PasswordProof
from userapi.errors import ServiceError

from .access import open_to_password_change, renew_session, signed_in
from .blueprint import blp
from .errors import page_with_errors
from .forms import read_form
from .onward import path_in_console
from .rendering import flash_success, page

TEMPLATE = "confirm.html"


@blp.route("/confirm", methods=["GET"])
@signed_in
@open_to_password_change
@open_to_enrollment
def confirm_page() -> Response:
    """Ask for a code, or for the password of a user without second factors."""
    return page(TEMPLATE, **_values())


@blp.route("/confirm", methods=["POST"])
@signed_in
@open_to_password_change
@open_to_enrollment
def confirm() -> Response:
    """Authenticate again, by the same rules as POST /api/v1/auth/step-up."""
    use_case, own, actor = services().step_up, current_session(), current_actor()
    schema: type[Schema] = AppCode if own.mfa_enabled else PasswordProof
    try:
        body = read_form(schema)
        if own.mfa_enabled:
            pair = use_case.with_code(own, body["code"], actor=actor)
        else:
            pair = use_case.with_password(own, body["password"], actor=actor)
    except ServiceError as error:
        return ask_to_confirm_again(error)
    renew_session(pair)
    onward = path_in_console(request.args.get("onward"))
    if onward:
        return redirect(onward, 303)
    return flash_success(gettext("You are confirmed."), "security_page")


def ask_to_confirm_again(error: ServiceError) -> Response:
    """Show the page with an error."""
    return page_with_errors(error, TEMPLATE, **_values())


def _values() -> dict[str, Any]:
    own = current_session()
    return {
        "onward": path_in_console(request.args.get("onward")),
        "with_code": own.mfa_enabled,
        "methods": services().factor_list.methods_of(own.user_id) if own.mfa_enabled else [],
    }
