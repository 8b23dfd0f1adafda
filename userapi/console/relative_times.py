"""Times relative to now, as people say them. The exact time is the tooltip."""

from datetime import UTC, datetime

from userapi.api.context import services

from .blueprint import blp

UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))
# A longer time ago, the date says more than the number of days.
MAX_DAYS = 30


@blp.app_template_filter("ago")
def ago(value: datetime) -> str:
    """Return how long ago a time was; the date if it is more than a month ago."""
    seconds = (services().clock.now() - value).total_seconds()
    if seconds >= (MAX_DAYS + 1) * 86_400:
        return f"{value.astimezone(UTC):%Y-%m-%d}"
    for unit, length in UNITS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


@blp.app_template_filter("exact")
def exact(value: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
