"""Pages of one user: overview, form, security and activity.

Each tab is a page. `user_actions` changes the state of the account, `user_roles` the roles.
"""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from flask import request
from flask_babel import gettext
from marshmallow import ValidationError
from werkzeug.wrappers import Response

from userapi.accounts.models import UserStatus
from userapi.accounts.views import UserView
from userapi.api.context import current_actor, services
from userapi.api.schemas.collection_fields import JsonObject
from userapi.api.schemas.users import MAX_METADATA_BYTES, UserUpdate
from userapi.authentication.owners import find_by_email
from userapi.errors import ServiceError
from userapi.infrastructure import strict_json
from userapi.infrastructure.pagination import PageRequest
from userapi.machines.key_owners import user_owner
from userapi.permissions import Permission

from .access import requires
from .audit_sentences import sentence
from .audit_targets import names_of
from .blueprint import blp
from .errors import page_with_errors
from .forms import read_form
from .rendering import flash_success, own_picture, page
from .session_lists import matching_sessions, values_of_sessions

ENTRIES_SHOWN = 25


class UserForm(UserUpdate):
    """The form of a user, without the fields that have separate forms."""

    class Meta:
        """Excluded, because the form has no inputs for them and would clear them."""

        exclude = ("metadata", "roles", "status")


class MetadataText(JsonObject):
    """Metadata as they are typed: the text of a JSON object."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            typed = strict_json.loads(value.strip() or "{}")
        except strict_json.NotStrictJson as exc:
            raise ValidationError(str(exc)) from exc
        except RecursionError as exc:
            raise ValidationError("The JSON is nested too deeply.") from exc
        return super()._deserialize(typed, attr, data, **kwargs)


class UserFormWithMetadata(UserUpdate):
    """The same form with an input for the metadata."""

    metadata = MetadataText(max_bytes=MAX_METADATA_BYTES)

    class Meta:
        """Excluded, because the form has no inputs for them and would clear them."""

        exclude = ("roles", "status")


@blp.route("/users/<uuid:user_id>", methods=["GET"])
@requires(Permission.USERS_READ)
def user_page(user_id: UUID) -> Response:
    """Show a user, and the actions that the caller may take."""
    return page("user.html", **shown(user_id))


@blp.route("/users/<uuid:user_id>/edit", methods=["GET"])
@requires(Permission.USERS_UPDATE)
def edit_user_page(user_id: UUID) -> Response:
    """Show the form of a user."""
    return page("user_edit.html", **shown(user_id))


@blp.route("/users/<uuid:user_id>", methods=["POST"])
@requires(Permission.USERS_UPDATE)
def change_user(user_id: UUID) -> Response:
    """Change the fields of a user, unless they have changed since they were shown."""
    try:
        user = services().account_editing.update(
            user_id, _typed(), actor=current_actor(), if_match=request.args.getlist("version")
        )
    except ServiceError as error:
        return page_with_errors(error, "user_edit.html", **shown(user_id))
    return flash_success(
        gettext("%(name)s was saved.", name=user.username), "user_page", user_id=user_id
    )


@blp.route("/users/<uuid:user_id>/security", methods=["GET"])
@requires(Permission.USERS_READ)
def user_security_page(user_id: UUID) -> Response:
    """Show the second factors of a user, and to those who may see them sessions and keys."""
    actor, values = current_actor(), shown(user_id)
    values["mfa"] = services().factor_list.of(user_id, own=False)
    if Permission.SESSIONS_READ not in actor.permissions:
        return page("user_security.html", sessions=None, **values)
    sessions = services().sessions.list_of(user_id, current=actor.session_id)
    values["sessions"] = sessions
    values["session_values"] = values_of_sessions(sessions, user_id=user_id)
    values["keys"] = services().api_keys.list_of(user_owner(user_id))
    try:
        listed = matching_sessions(sessions)
    except ServiceError as error:
        return page_with_errors(error, "user_security.html", shown=None, **values)
    return page("user_security.html", shown=listed, **values)


@blp.route("/users/<uuid:user_id>/activity", methods=["GET"])
@requires(Permission.AUDIT_READ)
def user_activity_page(user_id: UUID) -> Response:
    """Show the latest actions by a user and on a user."""
    actor = current_actor()
    actor.require(Permission.USERS_READ)
    values = shown(user_id)
    entries = services().audit_reader.activity(
        user_id,
        PageRequest(page_size=ENTRIES_SHOWN, cursor=request.args.get("cursor") or None),
        actor=actor,
    )
    rows = [SimpleNamespace(**entry) for entry in entries.items]
    return page(
        "user_activity.html",
        rows=rows,
        next_cursor=entries.next_cursor,
        names=names_of(rows),
        sentence=sentence,
        **values,
    )


def shown(user_id: UUID) -> dict[str, Any]:
    """Return what every page of a user shows. Raises UserNotFound."""
    actor, user = current_actor(), services().accounts.get(user_id)
    theirs = services().roles.graph().effective(user.roles)
    return {
        "user": user,
        "full_name": " ".join(filter(None, (user.first_name, user.last_name))),
        "is_own": actor.is_user(user_id),
        "is_invited": is_invited(user),
        "outranked": actor.is_user(user_id) or actor.permissions.outranks(theirs),
        "picture": own_picture(user.avatar_url),
    }


def is_invited(user: UserView) -> bool:
    """Return whether a user has an open invitation."""
    return user.status == UserStatus.PENDING and find_by_email(user.email).is_invited


def _typed() -> dict[str, Any]:
    """Return the fields of the form. Raises Invalid with every error, also of the metadata."""
    text = request.form.get("metadata")
    if text is None:
        return read_form(UserForm)
    # An empty text means no metadata; other empty fields would be omitted.
    return read_form(UserFormWithMetadata, metadata=text)
