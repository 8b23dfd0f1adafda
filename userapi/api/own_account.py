"""Endpoints of the signed-in user: /api/v1/users/me."""

from typing import Any
from uuid import UUID

from flask import Response

from userapi.authentication.password_check import InvalidCredentials
from userapi.errors import Stale
from userapi.infrastructure.export import document_pieces
from userapi.lockout.service import TooManyAttempts
from userapi.machines.status import LiveKey
from userapi.passwords.hashing_pool import Busy
from userapi.roles.errors import LastSuperadmin

from .access import identified, signed_in
from .context import current_actor, current_caller, current_session, services
from .credentials import Credentials
from .exports import document_response
from .responses import if_match, profile_response, user_response
from .restrictions import fresh_with_mfa
from .schemas.users import OwnDeletion, PersonalExport, ProfileUpdate, User
from .users import blp


@blp.route("/me", methods=["GET"])
@identified(Credentials.PEOPLE)
@blp.response(200, User)
def show_me() -> Any:
    """Get the signed-in user, or the owner of a personal API key."""
    caller = current_caller()
    if isinstance(caller, LiveKey):
        return user_response(services().accounts.get(caller.owner_id))
    if caller.profile is not None:
        return profile_response(caller.profile)
    return user_response(services().accounts.get(caller.user_id))


@blp.route("/me", methods=["PUT"], endpoint="replace_me")
@blp.route("/me", methods=["PATCH"])
@signed_in
@blp.arguments(ProfileUpdate)
@blp.response(200, User)
@blp.raises(Stale)
def update_me(body: dict[str, Any]) -> Any:
    """Change the profile of the signed-in user. Omitted fields keep their values."""
    user_id = current_session().user_id
    user = services().account_editing.update(
        user_id, body, actor=current_actor(), if_match=if_match()
    )
    return user_response(user)


@blp.route("/me", methods=["DELETE"])
@signed_in
@fresh_with_mfa
@blp.arguments(OwnDeletion)
@blp.response(204)
@blp.raises(InvalidCredentials, TooManyAttempts, LastSuperadmin, Busy)
def delete_me(body: dict[str, Any]) -> None:
    """Delete the account of the signed-in user permanently."""
    services().own_account_deletion.delete(
        current_session().user_id,
        current_password=body["current_password"],
        actor=current_actor(),
    )


@blp.route("/me/export", methods=["GET"])
@signed_in
@blp.response(200, PersonalExport)
def export_me() -> Any:
    """Download all data about the signed-in user (GDPR art. 15)."""
    return personal_export(current_session().user_id)


def personal_export(user_id: UUID) -> Response:
    """Return a download of all data about a user, for this user.

    It is streamed, so its memory does not depend on the length of the audit log.
    """
    pieces = document_pieces(
        {
            "profile": services().accounts.get(user_id),
            "mfa": services().factor_list.of(user_id, own=True),
        },
        {
            "sessions": services().sessions.all_of(user_id),
            "api_keys": services().api_keys.all_of_user(user_id),
            "audit": services().audit_reader.all_about(user_id, actor=current_actor()),
        },
    )
    return document_response(pieces, filename="my-data.json")
