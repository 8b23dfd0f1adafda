"""What happens to every request before its view: correlation, host; and its one log line."""

import re
import time
from ipaddress import ip_address

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import BadRequest, NotFound

from userapi.characters import has_controls
from userapi.infrastructure.logging import AccessLog, accepted_correlation_id, accepted_traceparent
from userapi.settings import Settings

from .access import anonymous_actor
from .context import present

HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)

# Probes of a platform and Prometheus know no name, and neither answers with anything of the host.
CALLED_BY_ADDRESS = ("health.", "metrics")


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare every request and write one line about it."""
    access_log = AccessLog(settings)

    @app.before_request
    def begin() -> None:
        state, headers = present(g), request.headers
        state.begun = time.perf_counter()
        correlation_id = accepted_correlation_id(
            headers.get("X-Correlation-ID"), headers.get("X-Request-ID")
        )
        traceparent = accepted_traceparent(headers.get("traceparent"))
        state.correlation_id = correlation_id
        state.answer_headers = [("X-Correlation-ID", correlation_id)]
        state.actor = anonymous_actor(correlation_id=correlation_id, traceparent=traceparent)
        # Cleared here and not at the end, or the access line would lose them.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        if traceparent:
            structlog.contextvars.bind_contextvars(traceparent=traceparent)
        require_host(settings.trusted_hosts)

    @app.after_request
    def log_access(response: Response) -> Response:
        asked, state, now = present(request), present(g), time.perf_counter()
        actor = state.get("actor")
        fields = {
            "correlation_id": state.get("correlation_id"),
            "method": asked.method,
            "path": asked.path,
            "status": response.status_code,
            "duration_ms": round((now - state.get("begun", now)) * 1000, 2),
            "user_id": str(actor.id) if actor and actor.id else None,
            "ip_address": asked.remote_addr,
        }
        if actor and actor.traceparent:
            fields["traceparent"] = actor.traceparent
        access_log.write(fields)
        return response


def refuse_control_characters(app: Flask) -> None:
    """Answer 404 where the path has control characters, which PostgreSQL may not even store.

    No resource has such a name. Asked after the rate limit has counted the request.
    """

    @app.before_request
    def find_nothing() -> None:
        if has_controls(present(request).path):
            raise NotFound()


def require_host(trusted: tuple[str, ...]) -> None:
    """Refuse a request without Host, with a broken one (RFC 9112 §3.2), or with a foreign one.

    Probes of load balancers speak HTTP/1.0, which knows no Host.
    """
    host = request.environ.get("HTTP_HOST", "")
    if not host and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        if (request.endpoint or "").startswith("health."):
            return
    if not HOST.fullmatch(host):
        raise BadRequest("The request has no usable Host header.")
    if not trusted:
        return
    name = host.rsplit(":", 1)[0].lower() if not host.endswith("]") else host.lower()
    if any(name == t.lower() or (t.startswith(".") and name.endswith(t.lower())) for t in trusted):
        return
    if not ((request.endpoint or "").startswith(CALLED_BY_ADDRESS) and _is_address(name)):
        raise BadRequest("This host is not served here.")


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
