"""The audit rows of requests that were denied."""

from flask import request

from userapi.actor import Concealed
from userapi.audit.actions import AuditAction, Outcome
from userapi.errors import Forbidden

from .context import current_actor, services


def record_denial(error: Forbidden | Concealed) -> None:
    """Write an audit row about a denied request of a known user.

    It has its own transaction, because that of the denied change was rolled back. The rate limit
    precedes the guard and so bounds the number of rows per user.
    """
    actor = current_actor()
    if actor.id is None:
        return
    members = {"permission": error.permission} if isinstance(error, Concealed) else error.extra
    services().audit.record_alone(
        AuditAction.AUTH_PERMISSION_DENIED,
        actor=actor,
        target=_target(),
        outcome=Outcome.DENIED,
        details={
            "code": error.code,
            "method": request.method,
            "endpoint": request.endpoint,
            **{k: v for k, v in members.items() if isinstance(v, str | list)},
        },
    )


def _target() -> tuple[str, object] | None:
    """Return the user or role in the path of the request."""
    values = request.view_args or {}
    if "user_id" in values:
        return "user", values["user_id"]
    if "name" in values and "/roles/<name>" in str(request.url_rule):
        return "role", str(values["name"])[:64]
    return None
