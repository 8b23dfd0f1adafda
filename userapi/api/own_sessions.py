"""Endpoints of the signed-in user's sessions: /api/v1/auth/sessions."""

from typing import Any
from uuid import UUID

from userapi.sessions.service import EndReason, SessionNotFound

from .access import signed_in
from .auth import blp
from .context import current_actor, current_session, services
from .schemas.auth import SessionList
from .schemas.common import Revoked


@blp.route("/sessions", methods=["GET"])
@signed_in
@blp.response(200, SessionList)
def sessions() -> Any:
    """List the sessions of the signed-in user."""
    live = current_session()
    return {"items": services().sessions.list_of(live.user_id, current=live.session_id)}


@blp.route("/sessions/<uuid:session_id>", methods=["DELETE"])
@signed_in
@blp.response(204)
@blp.raises(SessionNotFound)
def end_session(session_id: UUID) -> None:
    """End one session of the signed-in user."""
    services().session_revocation.end_session(
        current_session().user_id, session_id, actor=current_actor(), reason=EndReason.REVOKED
    )


@blp.route("/sessions", methods=["DELETE"])
@signed_in
@blp.response(200, Revoked)
def end_other_sessions() -> Any:
    """End all other sessions of the signed-in user."""
    live = current_session()
    revoked = services().session_revocation.end_sessions(
        live.user_id, actor=current_actor(), keep=live.session_id
    )
    return {"revoked": revoked}
