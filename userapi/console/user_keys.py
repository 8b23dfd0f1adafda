"""The API keys of one user, which administrators see and revoke like sessions."""

from uuid import UUID

from flask_babel import gettext
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.errors import ServiceError
from userapi.machines.key_owners import user_owner
from userapi.permissions import Permission

from .access import requires
from .blueprint import blp
from .errors import flash_error
from .rendering import flash_success


@blp.route("/users/<uuid:user_id>/api-keys/<uuid:key_id>/revoke", methods=["POST"])
@requires(Permission.SESSIONS_REVOKE)
def revoke_key_of_user(user_id: UUID, key_id: UUID) -> Response:
    """Revoke an API key of a user."""
    try:
        services().key_revocation.revoke(user_owner(user_id), key_id, actor=current_actor())
    except ServiceError as error:
        return flash_error(error, "user_security_page", user_id=user_id)
    return flash_success(gettext("The key was revoked."), "user_security_page", user_id=user_id)
