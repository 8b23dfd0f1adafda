"""What every request shares: the correlation id, the check of its host, and its log line."""

import re
import time
from ipaddress import ip_address

import structlog
from flask import Flask, Request, Response, request
from werkzeug.exceptions import BadRequest, NotFound

from userapi.characters import has_controls
from userapi.infrastructure.logging import (
    accepted_correlation_id,
    accepted_traceparent,
    log_request,
    path_in_log,
)
from userapi.settings import Settings

from .access import anonymous_actor
from .context import request_state, services, unproxied
from .key_access import client_address

HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)

# Probes and Prometheus use addresses; no response of these endpoints contains the host.
CALLED_BY_ADDRESS = ("health.", "metrics")


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare every request and write one line about it."""

    @app.before_request
    def begin() -> None:
        current, state = unproxied(request), request_state()
        # Each access to Flask's `headers` takes six calls.
        environ = current.environ
        correlation_id = accepted_correlation_id(
            environ.get("HTTP_X_CORRELATION_ID"), environ.get("HTTP_X_REQUEST_ID")
        )
        traceparent = accepted_traceparent(environ.get("HTTP_TRACEPARENT"))
        state.correlation_id = correlation_id
        state.actor = anonymous_actor(correlation_id=correlation_id, traceparent=traceparent)
        state.response_headers.append(("X-Correlation-ID", correlation_id))
        # Cleared at the start and not at the end, so that the access line has them.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        if traceparent:
            structlog.contextvars.bind_contextvars(traceparent=traceparent)
        require_host(current, settings.trusted_hosts)

    @app.after_request
    def record_use_of_key(response: Response) -> Response:
        live = request_state().live_key
        if live is not None:
            services().key_usage.record(live, client_address())
        return response

    @app.after_request
    def log_access(response: Response) -> Response:
        current, state = unproxied(request), request_state()
        log_request(
            correlation_id=state.correlation_id,
            method=current.method,
            path=path_in_log(current.path),
            status=response.status_code,
            duration_ms=round((time.perf_counter() - state.started) * 1000, 2),
            user_id=str(state.actor.id) if state.actor.id else None,
            ip_address=current.remote_addr,
            traceparent=state.actor.traceparent,
        )
        return response


def refuse_control_characters(app: Flask) -> None:
    """Return 404 for a path with control characters, which PostgreSQL cannot always store.

    No resource has such a name. The rate limit has counted the request before.
    """

    @app.before_request
    def find_nothing() -> None:
        if has_controls(unproxied(request).path):
            raise NotFound()


def require_host(current: Request, trusted: tuple[str, ...]) -> None:
    """Reject a request with a missing, malformed (RFC 9112 §3.2) or untrusted Host header.

    Probes of load balancers use HTTP/1.0, which has no Host header.
    """
    host = current.environ.get("HTTP_HOST", "")
    if not host and current.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        if (current.endpoint or "").startswith("health."):
            return
    if not HOST.fullmatch(host):
        raise BadRequest("The request has no usable Host header.")
    if not trusted:
        return
    name = host.rsplit(":", 1)[0].lower() if not host.endswith("]") else host.lower()
    if any(name == t.lower() or (t.startswith(".") and name.endswith(t.lower())) for t in trusted):
        return
    if not ((current.endpoint or "").startswith(CALLED_BY_ADDRESS) and _is_address(name)):
        raise BadRequest("This host is not served here.")


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
