"""Logs and correlation: one JSON object a line, for the service, Gunicorn and libraries alike."""

import logging
import logging.handlers
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson
import structlog

from userapi.clock import SystemClock, rfc3339
from userapi.settings import Settings

CORRELATION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
SECRET_KEYS = frozenset(
    {
        "password",
        "new_password",
        "current_password",
        "token",
        "access_token",
        "refresh_token",
        "secret",
        "authorization",
        "cookie",
        "password_hash",
        "api_key",
    }
)

_clock = SystemClock()

Event = MutableMapping[str, Any]


def accepted_correlation_id(*candidates: str | None) -> str:
    """Return the first candidate that may be used, or a new id."""
    for candidate in candidates:
        if candidate and CORRELATION_ID.fullmatch(candidate):
            return candidate
    return secrets.token_hex(16)


def accepted_traceparent(candidate: str | None) -> str | None:
    """Return the header if it is well formed (W3C Trace Context §3.2)."""
    return candidate if candidate and TRACEPARENT.fullmatch(candidate) else None


def configure_logging(settings: Settings) -> None:
    """Send every logger of the process through one formatter."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _add_timestamp,
        _mask_secrets,
    ]
    console = settings.log_format == "console"
    renderers: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
        if console
        else [structlog.processors.format_exc_info, _name_message, _render_json]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler
    if settings.log_file is not None:
        settings.log_file.parent.mkdir(parents=True, exist_ok=True)
        # Reopened when logrotate moves it away.
        handler = _QuietFileHandler(settings.log_file, encoding="utf-8")
    else:
        handler = _QuietStreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("gunicorn.error", "gunicorn.access", "werkzeug", "alembic", "flask_cors"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    logging.getLogger("alembic").setLevel(logging.WARNING)


class _QuietStreamHandler(logging.StreamHandler[Any]):
    """A log that cannot be written must not stop the service, nor write about it in a loop."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base
        """Let the line go."""


class _QuietFileHandler(logging.handlers.WatchedFileHandler):
    """The same for a file: a full disk costs lines, not requests."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or let it go where the file cannot even be reopened."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base
        """Let the line go."""


def _add_timestamp(_logger: Any, _method: str, event: Event) -> Event:
    event["timestamp"] = rfc3339(_clock.now())
    return event


def _mask_secrets(_logger: Any, _method: str, event: Event) -> Event:
    for key in event:
        if key in SECRET_KEYS:
            event[key] = "***"
    return event


def _name_message(_logger: Any, _method: str, event: Event) -> Event:
    event["message"] = event.pop("event", "")
    return event


_ORDER = ("timestamp", "level", "logger", "message", "correlation_id")


def _render_json(_logger: Any, _method: str, event: Event) -> str:
    ordered: dict[str, Any] = {key: event.pop(key) for key in _ORDER if key in event}
    ordered.setdefault("correlation_id", None)
    ordered.update(event)
    try:
        return orjson.dumps(ordered, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # Text that is no Unicode, such as a lone surrogate.
        return orjson.dumps(_as_text(ordered)).decode()


def _as_text(event: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key): str(value).encode("utf-8", "backslashreplace").decode()
        for key, value in event.items()
    }
