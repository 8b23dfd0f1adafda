"""Gunicorn's worker, with what it leaves out: it says "not ready" before it stops, and requests
that never reach the application are refused as all others are, with a line in the log.
"""

import http
import secrets
import signal
from types import FrameType
from typing import Any

import orjson
import structlog
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

access_log = structlog.get_logger("userapi.access")
log = structlog.get_logger(__name__)

# Sent by the master before it stops its workers.
DRAIN_SIGNAL = signal.SIGUSR2

_REFUSALS: dict[type[errors.ParseException], tuple[int, str, str]] = {
    errors.LimitRequestLine: (414, "uri_too_long", "The request line is too long."),
    errors.LimitRequestHeaders: (431, "headers_too_large", "The headers are too large."),
    errors.ExpectationFailed: (417, "expectation_failed", "The expectation cannot be met."),
    errors.UnsupportedTransferCoding: (501, "not_implemented", "This coding is not supported."),
    errors.ForbiddenProxyRequest: (403, "forbidden", "This proxy is not trusted."),
}
_MALFORMED = (400, "malformed_request", "The request is not well-formed HTTP.")
_FAULTS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """The threaded worker that the service runs in."""

    def init_signals(self) -> None:
        """Listen to the master's word that the end is near."""
        super().init_signals()
        signal.signal(DRAIN_SIGNAL, self.handle_drain)

    def handle_drain(self, _signal: int, _frame: FrameType | None) -> None:
        """Say "not ready" from now on, and go on answering."""
        application = getattr(self, "wsgi", None)  # None while it is still being loaded.
        if application is not None:
            application.extensions["userapi"].health.drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the requests that are under way."""
        self.handle_drain(sig, frame)
        super().handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Refuse what is no HTTP, or more of it than is taken, and close the connection."""
        structlog.contextvars.clear_contextvars()
        correlation_id = secrets.token_hex(16)
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        status, code, title = 500, "internal_error", "Internal Server Error"
        if isinstance(exc, errors.ParseException) and not isinstance(exc, _FAULTS):
            status, code, title = _REFUSALS.get(type(exc), _MALFORMED)
        else:
            log.error("request.crashed", exc_info=exc)
        access_log.info(
            "request",
            method=getattr(req, "method", None),
            path=getattr(req, "path", None),
            status=status,
            duration_ms=0.0,
            user_id=None,
            ip_address=addr[0] if addr else None,
            refused=type(exc).__name__,
        )
        try:
            write_nonblock(client, refusal(status, code, title, correlation_id))
        except OSError:
            log.debug("request.answer_not_sent", status=status)


def refusal(status: int, code: str, title: str, correlation_id: str) -> bytes:
    """Return a whole response with a problem document (RFC 9457)."""
    body = orjson.dumps(
        {
            "type": f"urn:aima:problem:{code}",
            "title": title,
            "status": status,
            "detail": title,
            "instance": None,
            "code": code,
            "correlation_id": correlation_id,
        }
    )
    headers = {
        "Server": "gunicorn",
        "Connection": "close",
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Correlation-ID": correlation_id,
    }
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
