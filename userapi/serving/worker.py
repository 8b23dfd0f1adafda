"""Gunicorn's log and worker.

All lines use the format of the service. A request that Gunicorn rejects gets a problem document and
a line in the access log.
"""

import http
import secrets
from typing import Any

import orjson
import structlog
from gunicorn import glogging
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from userapi.infrastructure.logging import configure_logging, path_in_log
from userapi.settings import Settings, faults_end_the_process

access_log = structlog.get_logger("userapi.access")
log = structlog.get_logger(__name__)

_REFUSALS: dict[type[errors.ParseException], tuple[int, str, str]] = {
    errors.LimitRequestLine: (414, "uri_too_long", "The request line is too long."),
    errors.LimitRequestHeaders: (431, "headers_too_large", "The headers are too large."),
    errors.ExpectationFailed: (417, "expectation_failed", "The expectation cannot be met."),
    errors.UnsupportedTransferCoding: (501, "not_implemented", "This coding is not supported."),
    errors.ForbiddenProxyRequest: (403, "forbidden", "This proxy is not trusted."),
}
_MALFORMED = (400, "malformed_request", "The request is not well-formed HTTP.")
_FAULTS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no annotations
    """Gunicorn's logger, in the format of the service from the first line."""

    def setup(self, cfg: Any) -> None:
        """Configure the log after Gunicorn has configured it, at the start and at each reload."""
        super().setup(cfg)
        with faults_end_the_process():
            configure_logging(Settings.load())


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """The threaded worker, with errors in the format of the service."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Respond to a request that Gunicorn rejects. Gunicorn closes the connection."""
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
            path=path_in_log(getattr(req, "path", None)),
            status=status,
            duration_ms=0.0,
            user_id=None,
            ip_address=addr[0] if addr else None,
            refused=type(exc).__name__,
        )
        try:
            client.sendall(refusal(status, code, title, correlation_id))
        except OSError:
            log.debug("request.answer_not_sent", status=status)


def refusal(status: int, code: str, title: str, correlation_id: str) -> bytes:
    """Return a complete response with a problem document (RFC 9457)."""
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
