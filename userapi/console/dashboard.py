"""The first page: how things stand, for those who may know."""

from werkzeug.wrappers import Response

from userapi.api.context import current_actor, services
from userapi.permissions import Permission

from .pages import blp, go_to, page, requires, signed_in


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
    """Show totals, the last days and the state of the dependencies."""
    return page("dashboard.html", figures=services().statistics.figures())
