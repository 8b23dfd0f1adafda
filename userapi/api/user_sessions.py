"""Endpoints of the sessions of a user: /api/v1/users/{id}/sessions."""

from typing import Any
from uuid import UUID

from userapi.accounts.errors import UserNotFound
from userapi.permissions import Permission
from userapi.roles.errors import InsufficientRank
from userapi.sessions.service import EndReason, SessionNotFound

from .access import requires
from .context import current_actor, services
from .schemas.auth import SessionList
from .schemas.common import Revoked
from .users import blp


@blp.route("/<uuid:user_id>/sessions", methods=["GET"])
@requires(Permission.SESSIONS_READ)
@blp.response(200, SessionList)
@blp.raises(UserNotFound)
def list_sessions(user_id: UUID) -> Any:
    """List the live sessions of a user, the most recently used first."""
    user = services().accounts.get(user_id)
    current = current_actor().session_id
    return {"items": services().sessions.list_of(user.id, current=current)}


@blp.route("/<uuid:user_id>/sessions", methods=["DELETE"])
@requires(Permission.SESSIONS_REVOKE)
@blp.response(200, Revoked)
@blp.raises(UserNotFound, InsufficientRank)
def end_sessions(user_id: UUID) -> Any:
    """End every session of a user immediately."""
    return {"revoked": services().session_revocation.end_sessions(user_id, actor=current_actor())}


@blp.route("/<uuid:user_id>/sessions/<uuid:session_id>", methods=["DELETE"])
@requires(Permission.SESSIONS_REVOKE)
@blp.response(204)
@blp.raises(UserNotFound, SessionNotFound, InsufficientRank)
def end_session(user_id: UUID, session_id: UUID) -> None:
    """End one session of a user."""
    services().session_revocation.end_session(
        user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
    )
