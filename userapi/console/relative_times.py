"""Times relative to now, in the viewer's language. The exact time is the tooltip."""

from datetime import datetime, timedelta

from flask_babel import gettext

from userapi.api.context import services

from .blueprint import blp
from .languages import viewer

# A longer time ago, the date says more than the number of days.
MAX_AGE = timedelta(days=31)


@blp.app_template_filter("ago")
def ago(value: datetime) -> str:
    """Return how long ago a time was; the viewer's date if it is a month ago or more."""
    reader, age = viewer(), services().clock.now() - value
    if age >= MAX_AGE:
        return reader.day(value.astimezone(reader.zone).date(), "medium")
    return reader.ago(age.total_seconds()) or str(gettext("just now"))


@blp.app_template_filter("exact")
def exact(value: datetime) -> str:
    """Return a time to the second, in the viewer's zone, which is named."""
    return viewer().exact_moment(value)
