"""The search of users."""

from dataclasses import dataclass

from userapi.accounts.search import UserSearch
from userapi.clock import Clock
from userapi.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SearchServices:
    """The services that list users."""

    user_search: UserSearch


def build_search(settings: Settings, clock: Clock) -> SearchServices:
    """Build the services that list users."""
    return SearchServices(user_search=UserSearch(clock=clock, cursor_key=settings.secret_key))
