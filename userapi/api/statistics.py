"""The endpoint of statistics about users: /api/v1/users/stats."""

from typing import Any

from userapi.permissions import Permission

from .access import requires
from .blueprint import Blueprint
from .context import services
from .schemas.statistics import Statistics, StatisticsQuery

blp = Blueprint(
    "statistics",
    __name__,
    url_prefix="/api/v1/users",
    description="Statistics for a dashboard.",
)


@blp.route("/stats", methods=["GET"])
@requires(Permission.STATS_READ)
@blp.arguments(StatisticsQuery, location="query")
@blp.response(200, Statistics)
def show(query: dict[str, int]) -> Any:
    """Get statistics about users and their activity by day. They can be a minute old."""
    return services().statistics.figures(**query)
