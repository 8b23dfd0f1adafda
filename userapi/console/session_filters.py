"""Which sessions of a user a list shows, and in which order."""

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields, validate

from userapi.api.schemas.fields import Text
from userapi.sessions.views import SessionView

from .problem_texts import N_

SESSION_COLUMNS = {
    "ip_address": N_("Address"),
    "last_used_at": N_("Last used"),
    "created_at": N_("Since"),
    "expires_at": N_("Ends at the latest"),
    "user_agent": N_("User agent"),
    "id": N_("Id"),
}
DEFAULT_SESSION_COLUMNS = ("ip_address", "last_used_at", "created_at")
SESSION_ORDERS = ("ip_address", "last_used_at", "created_at", "expires_at")
DEFAULT_SESSION_ORDER = "-last_used_at"


class SessionsPageQuery(Schema):
    """The filters and the order of a list of sessions. `ip_address` is a part of the address."""

    device = Text(max_length=100)
    ip_address = Text(max_length=45)
    sort = fields.String(
        validate=validate.OneOf([f"{sign}{name}" for name in SESSION_ORDERS for sign in ("", "-")])
    )


class UserSessionsPageQuery(SessionsPageQuery):
    """The same of the sessions of another user, whose id is in the address of the page."""

    user_id = fields.UUID(required=True)


def matching(sessions: Sequence[SessionView], query: Mapping[str, Any]) -> list[SessionView]:
    """Return the sessions that match, in the order of the query.

    The session in use is first, and with it the group of its device.
    """
    order = query.get("sort", DEFAULT_SESSION_ORDER)
    column = order.removeprefix("-")
    found = [
        session
        for session in sessions
        if query.get("device") in (None, session.device)
        and query.get("ip_address", "") in (session.ip_address or "")
    ]
    found.sort(key=lambda session: getattr(session, column) or "", reverse=order.startswith("-"))
    found.sort(key=lambda session: not session.current)
    return found
