"""The first page: how things stand, for those who may know."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.permissions import Permission
from userapi.statistics import DayFigures

from .pages import blp, go_to, page, requires, signed_in

BAR_WIDTH, BAR_HEIGHT = 18, 120


@dataclass(frozen=True, slots=True)
class Bar:
    """A day of a chart: where its bar stands, and what it says."""

    day: date
    count: int
    x: int
    y: int
    height: int


@blp.route("/", methods=["GET"])
@signed_in
def home() -> Response:
    """Go to the page that somebody begins with."""
    if Permission.STATS_READ in current_actor().permissions:
        return go_to("dashboard")
    return go_to("profile_page")


@blp.route("/dashboard", methods=["GET"])
@requires(Permission.STATS_READ)
def dashboard() -> Response:
    """Show totals, the last days, and the state of the dependencies."""
    figures = services().statistics.figures()
    may_see_health = Permission.SYSTEM_READ in current_actor().permissions
    return page(
        "dashboard.html",
        figures=figures,
        charts=[
            ("Registrations", _bars(figures.days, "registrations")),
            ("Log-ins", _bars(figures.days, "logins")),
            ("Failed log-ins", _bars(figures.days, "failed_logins")),
        ],
        health=services().health.detailed() if may_see_health else None,
    )


def _bars(days: Sequence[DayFigures], name: str) -> list[Bar]:
    counts = [getattr(figures, name) for figures in days]
    most = max([1, *counts])
    heights = [round(count / most * BAR_HEIGHT) for count in counts]
    return [
        Bar(figures.date, count, place * BAR_WIDTH, BAR_HEIGHT - height, height)
        for place, (figures, count, height) in enumerate(zip(days, counts, heights, strict=True))
    ]
