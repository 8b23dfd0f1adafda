"""What administrators do with an account: suspend, unlock, reset, confirm, end sessions, delete.

Actions that end sessions or delete an account have a page that shows the consequences and requires
confirmation.
"""

from collections.abc import Callable
from uuid import UUID

from flask import flash, request, url_for
from flask_babel import gettext, ngettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.restrictions import fresh
from userapi.api.schemas.users import OptionalReason, Suspension
from userapi.errors import ServiceError, invalid_field
from userapi.permissions import Permission
from userapi.sessions.service import EndReason

from .access import requires
from .blueprint import blp
from .errors import error_text, page_with_errors
from .forms import local_time, read_form
from .rendering import flash_success, page, redirect_to
from .user import is_invited, shown


@blp.route("/users/<uuid:user_id>/suspend", methods=["GET"])
@requires(Permission.USERS_SUSPEND)
def suspend_user_page(user_id: UUID) -> Response:
    """Show what a suspension ends, with a form for its reason and its end."""
    return page("user_suspend.html", sessions_text=_about_sessions(user_id), **shown(user_id))


@blp.route("/users/<uuid:user_id>/suspend", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
def suspend_user(user_id: UUID) -> Response:
    """Suspend a user. Every session ends immediately."""
    try:
        body = read_form(Suspension, until=local_time("until"))
        was_active = services().accounts.get(user_id).status == "active"
        services().account_suspension.suspend(user_id, actor=current_actor(), **body)
    except ServiceError as error:
        return page_with_errors(
            error, "user_suspend.html", sessions_text=_about_sessions(user_id), **shown(user_id)
        )
    text = gettext("The user was suspended. Every session has ended.")
    if not was_active:
        flash(text, "success")
        return _way_back(user_id)
    undo = {
        "text": text,
        "action": url_for("console.activate_user", user_id=user_id),
        "fields": [("reason", "suspension undone"), ("back", request.form.get("back", ""))],
    }
    flash(undo, "undo")  # type: ignore[arg-type]  # Messages are stored as JSON.
    return _way_back(user_id)


@blp.route("/users/<uuid:user_id>/activate", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
def activate_user(user_id: UUID) -> Response:
    """Activate a pending or suspended user."""

    def activate() -> None:
        services().account_suspension.activate(
            user_id, actor=current_actor(), **read_form(OptionalReason)
        )

    return _act(user_id, activate, gettext("The user was activated."))


@blp.route("/users/<uuid:user_id>/unlock", methods=["POST"])
@requires(Permission.USERS_UNLOCK)
def unlock_user(user_id: UUID) -> Response:
    """Clear the failed log-ins of a user."""

    def unlock() -> None:
        services().account_suspension.unlock(user_id, actor=current_actor())

    return _act(user_id, unlock, gettext("The user was unlocked and can sign in again."))


@blp.route("/users/<uuid:user_id>/reset-mfa", methods=["GET"])
@requires(Permission.USERS_RESET_MFA)
@fresh
def reset_user_mfa_page(user_id: UUID) -> Response:
    """Show the consequences of a reset of the second factors, and ask for confirmation."""
    values = shown(user_id)
    return page(
        "user_question.html",
        tab_title=gettext("Second factors"),
        question=gettext("Remove all second factors of %(name)s?", name=values["user"].username),
        points=[
            gettext("All apps, passkeys and recovery codes of the user are removed."),
            gettext("After that, the password alone signs in. First verify who asks for this."),
            _about_sessions(user_id),
            gettext("The user receives a mail."),
        ],
        action="reset_user_mfa",
        label=gettext("Reset two-step sign-in"),
        **values,
    )


@blp.route("/users/<uuid:user_id>/reset-mfa", methods=["POST"])
@requires(Permission.USERS_RESET_MFA)
@fresh
def reset_user_mfa(user_id: UUID) -> Response:
    """Remove all second factors of a user, and end their sessions."""

    def reset() -> None:
        services().mfa_reset.reset(user_id, actor=current_actor())

    return _act(
        user_id, reset, gettext("The second factors were removed. Every session has ended.")
    )


@blp.route("/users/<uuid:user_id>/reset-password", methods=["GET"])
@requires(Permission.USERS_UPDATE)
def reset_user_password_page(user_id: UUID) -> Response:
    """Show the consequences of a password reset, and ask for confirmation."""
    values = shown(user_id)
    return page(
        "user_question.html",
        tab_title=gettext("Password"),
        question=gettext(
            "Mail %(name)s a link to set a new password?", name=values["user"].username
        ),
        points=[
            gettext(
                "The link is sent to %(email)s and works once, for an hour.",
                email=values["user"].email,
            ),
            _about_sessions(user_id),
            gettext("The current password works until the user sets a new one."),
        ],
        action="reset_user_password",
        label=gettext("Mail the link"),
        **values,
    )


@blp.route("/users/<uuid:user_id>/reset-password", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def reset_user_password(user_id: UUID) -> Response:
    """Mail a user a link that sets a new password, and end their sessions."""

    def reset() -> None:
        services().forced_reset.start(user_id, actor=current_actor())

    return _act(user_id, reset, gettext("The user was mailed a link to set a new password."))


@blp.route("/users/<uuid:user_id>/resend", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def resend_link(user_id: UUID) -> Response:
    """Mail the invitation again, or to a registered user the link that confirms the address."""
    user = services().accounts.get(user_id)
    if is_invited(user):
        return _act(
            user_id,
            lambda: services().forced_reset.start(user_id, actor=current_actor()),
            gettext("The invitation was mailed again. Earlier links are no longer valid."),
        )
    return _act(
        user_id,
        lambda: services().email_verification.resend(user.email, actor=current_actor()),
        gettext("The link was mailed again. Earlier links are no longer valid."),
    )


@blp.route("/users/<uuid:user_id>/confirm-address", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def confirm_address(user_id: UUID) -> Response:
    """Mark the address of a user as confirmed, for users who do not receive the mail."""

    def confirm() -> None:
        services().address_confirmation.confirm(user_id, actor=current_actor())

    return _act(user_id, confirm, gettext("The address was confirmed."))


@blp.route("/users/<uuid:user_id>/sessions/<uuid:session_id>/end", methods=["POST"])
@requires(Permission.SESSIONS_REVOKE)
def end_session_of_user(user_id: UUID, session_id: UUID) -> Response:
    """End one session of a user."""

    def end() -> None:
        services().session_revocation.end_session(
            user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
        )

    return _act(user_id, end, gettext("The session has ended."), "user_security_page")


@blp.route("/users/<uuid:user_id>/sessions/end", methods=["GET"])
@requires(Permission.SESSIONS_REVOKE)
def end_sessions_page(user_id: UUID) -> Response:
    """Show how many sessions end, and ask for confirmation."""
    values = shown(user_id)
    return page(
        "user_question.html",
        tab_title=gettext("Sessions"),
        question=gettext("End all sessions of %(name)s?", name=values["user"].username),
        points=[_about_sessions(user_id), gettext("The user can sign in again.")],
        action="end_sessions_of_user",
        label=gettext("End all sessions"),
        **values,
    )


@blp.route("/users/<uuid:user_id>/sessions/end", methods=["POST"])
@requires(Permission.SESSIONS_REVOKE)
def end_sessions_of_user(user_id: UUID) -> Response:
    """End every session of a user."""

    def end() -> None:
        services().session_revocation.end_sessions(user_id, actor=current_actor())

    return _act(user_id, end, gettext("All sessions of the user have ended."), "user_security_page")


@blp.route("/users/<uuid:user_id>/delete", methods=["GET"])
@requires(Permission.USERS_DELETE)
def delete_user_page(user_id: UUID) -> Response:
    """Show the consequences of a deletion, and ask for the user name."""
    return page("user_delete.html", sessions_text=_about_sessions(user_id), **shown(user_id))


@blp.route("/users/<uuid:user_id>/delete", methods=["POST"])
@requires(Permission.USERS_DELETE)
def delete_user(user_id: UUID) -> Response:
    """Delete a user, if the user name was typed as confirmation."""
    try:
        user = services().accounts.get(user_id)
        if request.form.get("confirmed_name") != user.username:
            message = gettext("Must be the user name. Nothing was deleted.")
            raise invalid_field("confirmed_name", message)
        services().account_deletion.delete(user_id, actor=current_actor(), if_match=[user.etag])
    except ServiceError as error:
        return page_with_errors(
            error, "user_delete.html", sessions_text=_about_sessions(user_id), **shown(user_id)
        )
    return flash_success(gettext("%(name)s was deleted.", name=user.username), "last_users_list")


def _act(
    user_id: UUID, action: Callable[[], object], message: str, endpoint: str = "user_page"
) -> Response:
    """Run an action and return to the page where it was chosen, with a message."""
    try:
        action()
    except ServiceError as error:
        flash(error_text(error), "error")
    else:
        flash(message, "success")
    return _way_back(user_id, endpoint)


def _way_back(user_id: UUID, endpoint: str = "user_page") -> Response:
    """Redirect to the list if the action was chosen there, otherwise to a page of the user."""
    if request.form.get("back") == "list":
        return redirect_to("last_users_list")
    return redirect_to(endpoint, user_id=user_id)


def _about_sessions(user_id: UUID) -> str:
    """Return what happens to the sessions of a user; their number if the viewer may see it."""
    if Permission.SESSIONS_READ not in current_actor().permissions:
        return str(gettext("Every session ends now."))
    live = len(services().sessions.list_of(user_id))
    if live == 0:
        return str(gettext("No session is live."))
    text: str = ngettext("%(num)d session ends now.", "%(num)d sessions end now.", live)
    return text
