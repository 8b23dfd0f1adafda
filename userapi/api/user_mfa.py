"""Endpoints of the second factors of a user: /api/v1/users/{id}/mfa."""

from typing import Any
from uuid import UUID

from userapi.accounts.errors import SelfActionRefused, UserNotFound
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank

from .access import requires
from .context import current_actor, services
from .credentials import Credentials
from .responses import as_json
from .restrictions import fresh
from .schemas.factors import Mfa
from .users import blp


@blp.route("/<uuid:user_id>/mfa", methods=["GET"])
@requires(Permission.USERS_READ, or_self="user_id")
@blp.response(200, Mfa)
@blp.raises(UserNotFound)
def show_mfa(user_id: UUID) -> Any:
    """Get the second factors of a user. `webauthn` is null."""
    user = services().accounts.get(user_id)
    return as_json(services().factor_list.of(user.id, own=False))


@blp.route("/<uuid:user_id>/mfa", methods=["DELETE"])
@requires(Permission.USERS_RESET_MFA, credentials=Credentials.INTERACTIVE)
@fresh
@blp.response(204)
@blp.raises(UserNotFound, InsufficientRank, SelfActionRefused)
def reset_mfa(user_id: UUID) -> None:
    """Remove all second factors and recovery codes of a user, and end their sessions.

    The user receives a mail. Password and status stay.
    """
    services().mfa_reset.reset(user_id, actor=current_actor())
