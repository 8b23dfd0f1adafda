"""Pages of the account of the viewer: profile, e-mail address, password, sessions and data."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from flask import request, session
from flask_babel import gettext, ngettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, current_session, services
from userapi.api.own_account import personal_export
from userapi.api.restrictions import fresh_with_mfa
from userapi.api.schemas.auth import EmailChange, PasswordChange
from userapi.api.schemas.users import OwnDeletion, ProfileUpdate
from userapi.errors import ServiceError
from userapi.sessions.service import EndReason

from .access import open_to_password_change, public, renew_session, signed_in
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import read_form
from .languages import in_language_of
from .rendering import flash_success, page
from .session_lists import matching_sessions, values_of_sessions


@blp.route("/profile", methods=["GET"])
@signed_in
def profile_page() -> Response:
    """Show the viewer's profile."""
    return page("profile.html", user=services().accounts.get(current_session().user_id))


@blp.route("/profile", methods=["POST"])
@signed_in
def change_profile() -> Response:
    """Change the viewer's profile, unless it has changed since it was shown."""
    user_id = current_session().user_id
    try:
        body = read_form(ProfileUpdate)
        services().account_editing.update(
            user_id, body, actor=current_actor(), if_match=request.args.getlist("version")
        )
    except ServiceError as error:
        return page_with_errors(error, "profile.html", user=services().accounts.get(user_id))
    with in_language_of(body.get("locale")):
        return flash_success(gettext("Your profile was saved."), "profile_page")


@blp.route("/email", methods=["GET"])
@signed_in
def email_page() -> Response:
    """Show the form to change the e-mail address."""
    return page("email.html", user=services().accounts.get(current_session().user_id))


@blp.route("/email", methods=["POST"])
@signed_in
@fresh_with_mfa
def change_email() -> Response:
    """Mail a link to the new address, which confirms the change."""
    user_id = current_session().user_id
    try:
        body = read_form(EmailChange)
        services().email_change.request(
            user_id,
            body["new_email"],
            current_password=body["current_password"],
            actor=current_actor(),
        )
    except ServiceError as error:
        return page_with_errors(error, "email.html", user=services().accounts.get(user_id))
    return flash_success(
        gettext("We sent a link to the new address. Open it to confirm the change."),
        "profile_page",
    )


@blp.route("/password", methods=["GET"])
@signed_in
@open_to_password_change
def password_page() -> Response:
    """Show the form to change the password."""
    return page("password.html")


@blp.route("/password", methods=["POST"])
@signed_in
@fresh_with_mfa
@open_to_password_change
def change_password() -> Response:
    """Change the password. This browser stays signed in; all other sessions end."""
    try:
        body = read_form(PasswordChange)
        tokens = services().password_change.change(
            current_session(),
            current=body["current_password"],
            new=body["new_password"],
            actor=current_actor(),
        )
    except ServiceError as error:
        return page_with_errors(error, "password.html")
    renew_session(tokens)
    return flash_success(
        gettext("Your password was changed. All other sessions have ended."), "password_page"
    )


@blp.route("/password-strength", methods=["POST"])
@public
def password_strength() -> Response:
    """Show the strength of a password while it is typed. Nothing is stored or logged."""
    form = request.form
    typed = form.get("new_password") or form.get("password") or ""
    strength = services().policy.strength(
        typed, username=form.get("username") or current_actor().username, email=form.get("email")
    )
    return page("password_strength.html", typed=bool(typed), strength=asdict(strength))


@blp.route("/sessions", methods=["GET"])
@signed_in
def sessions_page() -> Response:
    """Show the own sessions, of a device or address if chosen."""
    live = current_session()
    sessions = services().sessions.list_of(live.user_id, current=live.session_id)
    values: dict[str, Any] = {"sessions": sessions, "session_values": values_of_sessions(sessions)}
    try:
        shown = matching_sessions(sessions)
    except ServiceError as error:
        return page_with_errors(error, "sessions.html", shown=None, **values)
    return page("sessions.html", shown=shown, **values)


@blp.route("/sessions/<uuid:session_id>/end", methods=["POST"])
@signed_in
def end_session(session_id: UUID) -> Response:
    """End one of the viewer's sessions."""
    try:
        services().session_revocation.end_session(
            current_session().user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
        )
    except ServiceError as error:
        return flash_error(error, "sessions_page")
    return flash_success(gettext("The session has ended."), "sessions_page")


@blp.route("/sessions/end-others", methods=["POST"])
@signed_in
def end_other_sessions() -> Response:
    """End all other sessions of the viewer."""
    live = current_session()
    ended = services().session_revocation.end_sessions(
        live.user_id, actor=current_actor(), keep=live.session_id
    )
    message = ngettext(
        "%(num)d other session has ended.", "%(num)d other sessions have ended.", ended
    )
    return flash_success(message, "sessions_page")


@blp.route("/my-data", methods=["GET"])
@signed_in
def data_page() -> Response:
    """Show how to download the viewer's data and how to delete the account."""
    return page("data.html")


@blp.route("/my-data/export", methods=["GET"])
@signed_in
def export_data() -> Response:
    """Download all data about the user (GDPR art. 15)."""
    return personal_export(current_session().user_id)


@blp.route("/my-data/delete", methods=["POST"])
@signed_in
@fresh_with_mfa
def delete_account() -> Response:
    """Delete the account of the viewer permanently."""
    try:
        body = read_form(OwnDeletion)
        services().own_account_deletion.delete(
            current_session().user_id,
            current_password=body["current_password"],
            actor=current_actor(),
        )
    except ServiceError as error:
        return page_with_errors(error, "data.html")
    session.clear()
    return flash_success(gettext("Your account was deleted."), "sign_in_page")
