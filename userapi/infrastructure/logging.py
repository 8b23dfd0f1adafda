"""Logs and correlation: one JSON object per line, for the service, Gunicorn and libraries.

structlog renders the lines of the service and hands the text to the standard library, which also
formats the lines of Gunicorn and libraries, through the same processors.
"""

import io
import logging
import re
import secrets
import sys
from collections.abc import MutableMapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

from userapi.characters import escaped
from userapi.clock import SystemClock, rfc3339
from userapi.infrastructure.log_handlers import (
    FileHandler,
    LineHandler,
    PrivateFileHandler,
    StandardOutputHandler,
)
from userapi.private_files import make_folder
from userapi.settings import Settings, SettingsError

CORRELATION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
# The longest id or name in a path. A key or token that was pasted into a URL is longer.
MAX_SEGMENT = 64
LONG_SEGMENT = re.compile(rf"([^/]{{8}})[^/]{{{MAX_SEGMENT - 7},}}")
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

log = structlog.get_logger(__name__)
access_log = structlog.get_logger("userapi.access")
_clock = SystemClock()
_processors: list[Any] = []

Event = MutableMapping[str, Any]


def accepted_correlation_id(*candidates: str | None) -> str:
    """Return the first valid candidate, or a new id."""
    for candidate in candidates:
        if candidate and CORRELATION_ID.fullmatch(candidate):
            return candidate
    return secrets.token_hex(16)


def accepted_traceparent(candidate: str | None) -> str | None:
    """Return the header if it is well formed (W3C Trace Context §3.2)."""
    return candidate if candidate and TRACEPARENT.fullmatch(candidate) else None


def configure_logging(settings: Settings) -> None:
    """Write the lines of every logger of the process in one format.

    Raises SettingsError for a file that cannot be written.
    """
    readable = _is_for_people(settings)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _add_timestamp,
        _mask_secrets,
    ]
    renderers: list[Any] = [structlog.processors.format_exc_info, _render_json]
    if readable:
        renderers = [
            _escape_controls,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=_write_traceback
            ),
        ]
    # One list for the life of the process, because loggers keep the list of their first use.
    _processors[:] = [structlog.stdlib.filter_by_level, *shared, *renderers, _mark_as_rendered]
    structlog.configure(
        processors=_processors,
        # Plain loggers: those of structlog's own factory search the stack for the caller, which
        # takes longer than the rest of a line and appears in none.
        logger_factory=logging.getLogger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = (
        _file_handler(settings, settings.log_file) if settings.log_file else StandardOutputHandler()
    )
    if readable and sys.stdout.isatty():
        handler.addFilter(_is_no_farewell)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # No line shows the thread, the process or the caller, and looking them up is half the cost of a
    # record. Python's logging guide documents these four switches under "Optimization".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("gunicorn.error", "gunicorn.access", "werkzeug", "alembic", "flask_cors"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # `addFilter` ignores a filter that was added before.
    logging.getLogger("werkzeug").addFilter(_is_no_request_line)
    logging.getLogger("gunicorn.error").addFilter(_is_no_raw_path)
    _requests.handler = None if readable or not root.isEnabledFor(logging.INFO) else handler


@dataclass
class _Requests:
    """Where lines about requests are written directly; None: through structlog, as all others."""

    handler: LineHandler | None = None


_requests = _Requests()


def log_request(*, traceparent: str | None = None, **what: Any) -> None:
    """Write the line about a request, with `traceparent` if there is one.

    It is by far the most frequent line. The processors of structlog and a record of the standard
    library would take twice as long, 40 µs more of a request.
    """
    if traceparent:
        what["traceparent"] = traceparent
    if _requests.handler is None:
        access_log.info("request", **what)
        return
    event = {"level": "info", "logger": "userapi.access", "event": "request", **what}
    _requests.handler.write(_render_json(None, "info", _add_timestamp(None, "info", event)))


def warn_of_unverified_connections(settings: Settings) -> None:
    """Log each server that production reaches over a network without a verified certificate."""
    if settings.is_production:
        for variable in settings.unverified_connections:
            log.warning("settings.connection_not_verified", variable=variable)


def path_in_log(path: str | None) -> str | None:
    """Return a path with its long segments cut short: they may be credentials."""
    if path is None or len(path) <= MAX_SEGMENT:
        return path
    return LONG_SEGMENT.sub(r"\1…", path)


def _is_no_raw_path(record: logging.LogRecord) -> bool:
    """Drop the lines of Gunicorn at DEBUG with method and path, which the access log also has."""
    return record.msg != "%s %s"


def _is_no_request_line(record: logging.LogRecord) -> bool:
    """Drop the request lines of Flask's development server, which the access log also has."""
    return not str(record.msg).rstrip().endswith('"%s" %s %s')


def _is_for_people(settings: Settings) -> bool:
    """Return whether lines are for people: as configured, by default on a terminal."""
    if settings.log_format:
        return settings.log_format == "console"
    return settings.log_file is None and sys.stdout.isatty()


# What Gunicorn and the worker log when they stop. On a terminal it follows Ctrl-C.
_FAREWELLS = re.compile(r"Handling signal|Worker exiting|Shutting down|worker\.stopped")


def _is_no_farewell(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO:
        return True
    return not _FAREWELLS.search(str(record.msg))


def _file_handler(settings: Settings, path: Path) -> LineHandler:
    try:
        if path.is_relative_to(settings.instance_dir):
            make_folder(path.parent)
            return PrivateFileHandler(path, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(["LOG_FILE: must be the path of a writable file"]) from exc


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats the lines of libraries. The lines of the service arrive rendered."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. If the arguments do not match the message, it contains both."""
        if isinstance(record.msg, _RenderedLine):
            return record.msg
        try:
            return super().format(record)
        except (TypeError, ValueError, KeyError):
            record = copy(record)
            record.msg, record.args = f"{record.msg} {record.args!r}", None
            return super().format(record)


class _RenderedLine(str):
    """A line that structlog has rendered."""

    __slots__ = ()


def _mark_as_rendered(_logger: Any, _method: str, line: str) -> str:
    return _RenderedLine(line)


def _add_timestamp(_logger: Any, _method: str, event: Event) -> Event:
    event["timestamp"] = rfc3339(_clock.now())
    return event


def _mask_secrets(_logger: Any, _method: str, event: Event) -> Event:
    if not SECRET_KEYS.isdisjoint(event):
        for key in event.keys() & SECRET_KEYS:
            event[key] = "***"
    return event


def _render_json(_logger: Any, _method: str, event: Event) -> str:
    """Return one line. Values that JSON cannot represent or that are too long become short text."""
    ordered = {key: event.pop(key, None) for key in ("timestamp", "level", "logger")}
    ordered["message"] = event.pop("event", "")
    ordered["correlation_id"] = event.pop("correlation_id", None)
    ordered.update(event)
    try:
        line = orjson.dumps(ordered, default=str)
    except TypeError:
        line = b""
    if not line or len(line) > MAX_LINE:
        line = orjson.dumps({_plain(key): _plain(value) for key, value in ordered.items()})
    # Control characters beyond ASCII are inside strings, where JSON can escape them.
    return line.decode() if line.isascii() else escaped(line.decode())


MAX_LINE = 65536
MAX_TEXT = 8192


def _plain(value: object) -> int | float | str | None:
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    text = str(value)
    if len(text) > MAX_TEXT:
        # Keeps the end: that of a traceback names the error.
        text = f"{text[: MAX_TEXT // 2]}…{text[-MAX_TEXT // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _escape_controls(_logger: Any, _method: str, event: Event) -> Event:
    """Escape characters that start a new line or control a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped(value)
    return event


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    """Write a traceback without local variables, which could contain secrets."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    for line in text.getvalue().splitlines():
        out.write("\n" + escaped(line))
