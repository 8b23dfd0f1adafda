"""Endpoints of health: /api/v1/health."""

from typing import Any

from flask import Response

from userapi.permissions import Permission

from .access import public, requires
from .blueprint import Blueprint
from .context import services
from .responses import json_response
from .schemas.health import DetailedHealth, Health, Liveness, Readiness, Serving

blp = Blueprint(
    "health",
    __name__,
    url_prefix="/api/v1/health",
    description="The health of the service and its dependencies.",
)

_readiness = Readiness()
_serving = Serving()


@blp.route("/", methods=["GET"], strict_slashes=False)
@public
@blp.response(200, Health)
def index() -> Any:
    """Get the name and version of the service."""
    return services().health.summary()


@blp.route("/live", methods=["GET"])
@public
@blp.response(200, Liveness)
def live() -> Any:
    """Check that the process responds. It does not check dependencies."""
    return {"status": "alive"}


@blp.route("/ready", methods=["GET"])
@public
@blp.response(200, Readiness)
@blp.alt_response(503, schema=Readiness, description="Not ready for requests.")
def ready() -> Response:
    """Check that the service is ready: its database is available and migrated."""
    report = services().health.readiness()
    response = json_response(_readiness, report, 200 if report.is_ready else 503)
    if not report.is_ready:
        response.headers["Retry-After"] = "2"
    return response


@blp.route("/serving", methods=["GET"])
@public
@blp.response(200, Serving)
@blp.alt_response(503, schema=Serving, description="About to stop.")
def serving() -> Response:
    """Check that the process accepts requests. It does not check dependencies."""
    if services().health.is_serving():
        return json_response(_serving, {"status": "serving"})
    response = json_response(_serving, {"status": "draining"}, 503)
    response.headers["Retry-After"] = "2"
    return response


@blp.route("/detailed", methods=["GET"])
@requires(Permission.SYSTEM_READ, unless=lambda: services().settings.health_detailed_public)
@blp.response(200, DetailedHealth)
def detailed() -> Any:
    """Get the state of each component."""
    return services().health.detailed()
