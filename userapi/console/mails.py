"""The pages behind the links in mails.

A link contains its token in the fragment, which reaches no server log and no Referer. A script
copies it into the form. Without scripts, users paste the code from the mail.
"""

from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.schemas.auth import (
    EmailVerification,
    PasswordResetConfirmation,
    PasswordResetRequest,
)
from userapi.errors import ServiceError

from .access import public
from .blueprint import blp
from .errors import page_with_errors
from .forms import pasted_token, read_form
from .rendering import flash_success, page


@blp.route("/forgot-password", methods=["GET"])
@public
def forgot_password_page() -> Response:
    """Show the form to request a link to set a new password."""
    return page("forgot_password.html")


@blp.route("/forgot-password", methods=["POST"])
@public
def forgot_password() -> Response:
    """Mail the link. The response is the same for unknown addresses."""
    try:
        body = read_form(PasswordResetRequest)
        services().recovery.request_reset(body["email"], actor=current_actor())
    except ServiceError as error:
        return page_with_errors(error, "forgot_password.html")
    return page("forgot_password_sent.html")


@blp.route("/set-password", methods=["GET"])
@public
def set_password_page() -> Response:
    """Show the form to set a password with a link from a mail."""
    return page("set_password.html")


@blp.route("/set-password", methods=["POST"])
@public
def set_password() -> Response:
    """Set the password with the token of a mail."""
    try:
        body = read_form(PasswordResetConfirmation, token=pasted_token())
        services().recovery.confirm_reset(
            body["token"], body["new_password"], actor=current_actor()
        )
    except ServiceError as error:
        return page_with_errors(error, "set_password.html")
    return flash_success(gettext("Your password was set. Sign in."), "sign_in_page")


@blp.route("/verify-email", methods=["GET"])
@public
def verify_email_page() -> Response:
    """Show the form to confirm an address with a link from a mail."""
    return page("verify_email.html")


@blp.route("/verify-email", methods=["POST"])
@public
def verify_email() -> Response:
    """Confirm the address. The link alone does not: mail scanners also open links."""
    try:
        body = read_form(EmailVerification, token=pasted_token())
        services().email_verification.confirm(body["token"], actor=current_actor())
    except ServiceError as error:
        return page_with_errors(error, "verify_email.html")
    return flash_success(gettext("Your e-mail address was confirmed."), "sign_in_page")
