"""Health: is it alive, is it ready, and how is each component."""

from typing import Any

from flask import Response

from userapi.permissions import Permission

from .access import public, requires
from .blueprint import Blueprint
from .context import services
from .responses import json_response
from .schemas.health import DetailedHealth, Health, Liveness, Readiness

blp = Blueprint(
    "health",
    __name__,
    url_prefix="/api/v1/health",
    description="Whether the service and its dependencies are healthy.",
)

_readiness = Readiness()


@blp.route("/", methods=["GET"], strict_slashes=False)
@public
@blp.response(200, Health)
def index() -> Any:
    """Tell that the service answers, and which one it is."""
    return services().health.summary()


@blp.route("/live", methods=["GET"])
@public
@blp.response(200, Liveness)
def live() -> Any:
    """Tell that the process answers, whatever else is down."""
    return {"status": "alive"}


@blp.route("/ready", methods=["GET"])
@public
@blp.response(200, Readiness)
@blp.alt_response(503, schema=Readiness, description="Not ready for requests.")
def ready() -> Response:
    """Return whether the service can do its work: its database answers and is migrated."""
    report = services().health.readiness()
    response = json_response(_readiness, report, 200 if report.is_ready else 503)
    if not report.is_ready:
        response.headers["Retry-After"] = "2"
    return response


@blp.route("/detailed", methods=["GET"])
@requires(Permission.SYSTEM_READ, unless=lambda: services().settings.health_detailed_public)
@blp.response(200, DetailedHealth)
def detailed() -> Any:
    """Show each component."""
    return services().health.detailed()
