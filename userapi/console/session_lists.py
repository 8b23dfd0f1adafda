"""The list of a user's sessions, on the own page and on the page of a user."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask_babel import gettext

from userapi.sessions.views import SessionView

from .forms import read_query, typed_filters
from .list_preferences import values_of_list
from .session_filters import SESSION_ORDERS, SessionsPageQuery, matching


def values_of_sessions(
    sessions: Sequence[SessionView], *, user_id: UUID | None = None
) -> dict[str, Any]:
    """Return what the list of sessions shows. `user_id` is that of another user.

    A user has at most `SESSION_MAX_PER_USER` live sessions, so the list has no pages.
    """
    place = {} if user_id is None else {"user_id": str(user_id)}
    filters = typed_filters(SessionsPageQuery)
    # A filter for a device whose sessions have ended remains a choice.
    chosen = {filters["device"]} if "device" in filters else set()
    devices = sorted({session.device for session in sessions} | chosen)
    list_name = "sessions" if user_id is None else "user-sessions"
    return values_of_list(list_name, filters | place) | {
        "sessions": sessions,
        "typed": filters,
        "place": place,
        "session_orders": SESSION_ORDERS,
        "devices": [("", gettext("any")), *((device, device) for device in devices)],
    }


def matching_sessions(sessions: Sequence[SessionView]) -> list[SessionView]:
    """Return the sessions that match the filters of the URL. Raises Invalid."""
    return matching(sessions, read_query(SessionsPageQuery))
