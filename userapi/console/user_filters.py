"""The filters of the list of users, from a URL or from a form."""

from collections.abc import Mapping
from typing import Any

from userapi.accounts.search import UserFilter
from userapi.api.schemas.common import PAGE_FIELDS
from userapi.api.schemas.users import UserQuery

from .forms import day, read_query


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
