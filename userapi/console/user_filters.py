"""The filters of the list of users, from a URL or from a form."""

from collections.abc import Mapping
from typing import Any

from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.api.schemas.users import UserQuery

from .forms import day, read_query
from .problem_texts import N_, translated

# The filters as the page of users names them, and the values that are not for people.
FILTER_NAMES = {
    "search": N_("Search by name or e-mail"),
    "status": N_("Status"),
    "role": N_("Role"),
    "locked": N_("Locked"),
    "mfa_enabled": N_("Second factor"),
    "created_after": N_("Created from"),
    "created_before": N_("Created to"),
    "last_login_after": N_("Logged in from"),
    "last_login_before": N_("Logged in to"),
}
FILTER_VALUES: Mapping[str, Mapping[str, str]] = {
    "locked": {"true": N_("locked"), "false": N_("not locked")},
    "mfa_enabled": {"true": N_("on"), "false": N_("off")},
    "status": {status: str(status) for status in UserStatus},
}


def user_filter(typed: Mapping[str, str]) -> UserFilter:
    """Return the filter for filters as they were typed. Raises Invalid."""
    query = read_query(UserQuery, source=typed, **converted_days(typed))
    return UserFilter(**{name: query[name] for name in query if name not in PAGE_FIELDS})


def converted_days(typed: Mapping[str, str]) -> dict[str, Any]:
    """Return the filters that are days, in the form of the API. Both days are included."""
    return {
        "page": None,
        "page_size": None,
        "cursor": None,
        "created_after": day("created_after", source=typed),
        "created_before": day("created_before", after=1, source=typed),
        "last_login_after": day("last_login_after", source=typed),
        "last_login_before": day("last_login_before", after=1, source=typed),
    }


def filters_in_words(typed: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return filters as pairs of a name and a value, in the viewer's language."""
    words = []
    for name, label in FILTER_NAMES.items():
        if name in typed:
            value = FILTER_VALUES.get(name, {}).get(typed[name])
            words.append((translated(label), translated(value) if value else typed[name]))
    return words
