"""The start page, and the dashboard of statistics and health."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from flask_babel import format_percent
from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.permissions import Permission
from userapi.statistics import DayFigures

from .access import requires, signed_in
from .blueprint import blp
from .problem_texts import N_, translated
from .rendering import page, redirect_to

START_PAGES = (
    (Permission.STATS_READ, "dashboard"),
    (Permission.USERS_READ, "users_page"),
    (Permission.ROLES_READ, "roles_page"),
    (Permission.SERVICE_ACCOUNTS_READ, "service_accounts_page"),
    (Permission.AUDIT_READ, "audit_page"),
)
BAR_WIDTH, BAR_HEIGHT = 18, 120
CHARTS = {
    "registrations": N_("Sign-ups"),
    "logins": N_("Log-ins"),
    "failed_logins": N_("Failed log-ins"),
    "lockouts": N_("Lockouts"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of one day in a chart."""

    day: date
    count: int
    x: int
    y: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One number per day. `top` is the value at the upper edge."""

    title: str
    bars: Sequence[Bar]
    total: int
    top: int

    @property
    def width(self) -> int:
        """Return the width of all bars."""
        return len(self.bars) * BAR_WIDTH

    @property
    def height(self) -> int:
        """Return the height of the upper edge."""
        return BAR_HEIGHT


@blp.route("/", methods=["GET"])
@signed_in
def home() -> Response:
    """Redirect to the first page that the user may see; every user may see their profile."""
    permissions = current_actor().permissions
    endpoint = next((page for needed, page in START_PAGES if needed in permissions), "profile_page")
    return redirect_to(endpoint)


@blp.route("/dashboard", methods=["GET"])
@requires(Permission.STATS_READ)
def dashboard() -> Response:
    """Show totals, charts by day, service accounts, and the state of the dependencies."""
    figures = services().statistics.figures()
    held = current_actor().permissions
    may_see_health = Permission.SYSTEM_READ in held
    may_see_machines = Permission.SERVICE_ACCOUNTS_READ in held
    return page(
        "dashboard.html",
        figures=figures,
        mfa_share=format_percent(figures.mfa.enabled / figures.total),
        charts=[_chart(figures.days, name, translated(title)) for name, title in CHARTS.items()],
        machines=services().machine_overview.figures() if may_see_machines else None,
        health=services().health.detailed() if may_see_health else None,
    )


def _chart(days: Sequence[DayFigures], name: str, title: str) -> Chart:
    counts = [getattr(figures, name) for figures in days]
    top = _round_number_above(max(counts))
    heights = [round(count / top * BAR_HEIGHT) for count in counts]
    bars = [
        Bar(figures.date, count, place * BAR_WIDTH, BAR_HEIGHT - height, height)
        for place, (figures, count, height) in enumerate(zip(days, counts, heights, strict=True))
    ]
    return Chart(title=title, bars=bars, total=sum(counts), top=top)


def _round_number_above(most: int) -> int:
    """Return the smallest of 2, 4, 6, 8, 10, 20, 40, 60 … that is at least `most`. All are even."""
    unit = 1
    while most > 10 * unit:
        unit *= 10
    return next(step * unit for step in range(2, 11, 2) if step * unit >= most)
