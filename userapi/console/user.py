"""Pages of one user."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.api.schemas.users import OptionalReason, RoleAssignment, Suspension, UserUpdate
from userapi.errors import ServiceError, invalid_field
from userapi.infrastructure.pagination import PageRequest
from userapi.permissions import Permission
from userapi.roles.explanation import permission_chains
from userapi.sessions.service import EndReason

from .access import requires
from .blueprint import blp
from .errors import flash_error, page_with_errors
from .forms import read_form
from .rendering import flash_success, page

ENTRIES_SHOWN = 10


class UserForm(UserUpdate):
    """The form of a user, without the fields that have forms of their own."""

    class Meta:
        """Excluded, because the form has no inputs for them and would clear them."""

        exclude = ("metadata", "roles", "status")


@blp.route("/users/<uuid:user_id>", methods=["GET"])
@requires(Permission.USERS_READ)
def user_page(user_id: UUID) -> Response:
    """Show a user, and the actions that the caller may take."""
    return page("user.html", **_values_of(user_id))


@blp.route("/users/<uuid:user_id>", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def change_user(user_id: UUID) -> Response:
    """Change the fields of a user, unless they have changed since they were shown."""
    try:
        body = read_form(UserForm)
        user = services().account_editing.update(
            user_id, body, actor=current_actor(), if_match=request.args.getlist("version")
        )
    except ServiceError as error:
        return page_with_errors(error, "user.html", **_values_of(user_id))
    return flash_success(f"{user.username} was saved.", "user_page", user_id=user_id)


@blp.route("/users/<uuid:user_id>/suspend", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
def suspend_user(user_id: UUID) -> Response:
    """Suspend a user. Every session ends immediately."""

    def suspend() -> None:
        until = request.form.get("until")
        body = read_form(Suspension, until=f"{until}:00Z" if until else None)
        services().account_suspension.suspend(user_id, actor=current_actor(), **body)

    return _act(user_id, suspend, "The user was suspended. Every session has ended.")


@blp.route("/users/<uuid:user_id>/activate", methods=["POST"])
@requires(Permission.USERS_SUSPEND)
def activate_user(user_id: UUID) -> Response:
    """Activate a pending or suspended user."""

    def activate() -> None:
        services().account_suspension.activate(
            user_id, actor=current_actor(), **read_form(OptionalReason)
        )

    return _act(user_id, activate, "The user was activated.")


@blp.route("/users/<uuid:user_id>/unlock", methods=["POST"])
@requires(Permission.USERS_UNLOCK)
def unlock_user(user_id: UUID) -> Response:
    """Clear the failed log-ins of a user."""

    def unlock() -> None:
        services().account_suspension.unlock(user_id, actor=current_actor())

    return _act(user_id, unlock, "The user was unlocked and can sign in again.")


@blp.route("/users/<uuid:user_id>/roles", methods=["POST"])
@requires(Permission.ROLES_ASSIGN)
def set_roles(user_id: UUID) -> Response:
    """Replace the roles of a user by the selected ones."""

    def assign() -> None:
        services().role_assignment.set_roles(
            user_id,
            read_form(RoleAssignment)["roles"],
            actor=current_actor(),
            if_match=request.args.getlist("version"),
        )

    return _act(user_id, assign, "The roles were saved. They apply to the next request.")


@blp.route("/users/<uuid:user_id>/reset-password", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def reset_user_password(user_id: UUID) -> Response:
    """Mail a user a link that sets a new password, and end their sessions."""

    def reset() -> None:
        services().forced_reset.start(user_id, actor=current_actor())

    return _act(user_id, reset, "The user was mailed a link to set a new password.")


@blp.route("/users/<uuid:user_id>/sessions/<uuid:session_id>/end", methods=["POST"])
@requires(Permission.SESSIONS_REVOKE)
def end_session_of_user(user_id: UUID, session_id: UUID) -> Response:
    """End one session of a user."""

    def end() -> None:
        services().session_revocation.end_session(
            user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
        )

    return _act(user_id, end, "The session has ended.")


@blp.route("/users/<uuid:user_id>/sessions/end", methods=["POST"])
@requires(Permission.SESSIONS_REVOKE)
def end_sessions_of_user(user_id: UUID) -> Response:
    """End every session of a user."""

    def end() -> None:
        services().session_revocation.end_sessions(user_id, actor=current_actor())

    return _act(user_id, end, "All sessions of the user have ended.")


@blp.route("/users/<uuid:user_id>/delete", methods=["POST"])
@requires(Permission.USERS_DELETE)
def delete_user(user_id: UUID) -> Response:
    """Delete a user, if the user name was typed as confirmation."""
    try:
        user = services().accounts.get(user_id)
        if request.form.get("confirmed_name") != user.username:
            message = "Must be the user name. Nothing was deleted."
            raise invalid_field("confirmed_name", message)
        services().account_deletion.delete(user_id, actor=current_actor(), if_match=[user.etag])
    except ServiceError as error:
        return flash_error(error, "user_page", user_id=user_id)
    return flash_success(f"{user.username} was deleted.", "users_page")


def _act(user_id: UUID, action: Callable[[], None], message: str) -> Response:
    """Run an action and return to the page of the user with a message."""
    try:
        action()
    except ServiceError as error:
        return flash_error(error, "user_page", user_id=user_id)
    return flash_success(message, "user_page", user_id=user_id)


def _values_of(user_id: UUID) -> dict[str, Any]:
    """Return the values of the page of a user. Raises UserNotFound."""
    actor, user = current_actor(), services().accounts.get(user_id)
    graph = services().roles.graph()
    entries = None
    if Permission.AUDIT_READ in actor.permissions:
        entries = services().audit_reader.activity(
            user_id, PageRequest(page_size=ENTRIES_SHOWN), actor=actor
        )
    sessions = None
    if Permission.SESSIONS_READ in actor.permissions:
        sessions = services().sessions.list_of(user_id, current=actor.session_id)
    return {
        "user": user,
        "own_id": actor.id,
        "outranked": actor.is_user(user_id)
        or actor.permissions.outranks(graph.effective(user.roles)),
        "roles": sorted(graph.names),
        "explained": permission_chains(user.roles),
        "sessions": sessions,
        "entries": entries,
    }
