"""Logs and correlation: one JSON object a line, for the service, Gunicorn and libraries alike."""

import io
import logging
import logging.handlers
import re
import secrets
import sys
import time
from collections.abc import Mapping, MutableMapping
from copy import copy
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

from userapi.characters import escaped
from userapi.clock import SystemClock, rfc3339
from userapi.private_files import make_file, make_folder
from userapi.settings import Settings, SettingsError

CORRELATION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# So late may a log that was moved away be missed.
MOVED_FILE_SECONDS = 0.5
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
_processors: list[Any] = []

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
    """Send every logger of the process through one formatter.

    Raises SettingsError for a file that cannot be written.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _add_timestamp,
        _mask_secrets,
    ]
    renderers: list[Any] = [structlog.processors.format_exc_info, _render_json]
    if _is_for_people(settings):
        renderers = [
            _escape_controls,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=_write_traceback
            ),
        ]
    # One list for the life of the process: loggers keep the one that they were first used with.
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = (
        _file_handler(settings, settings.log_file) if settings.log_file else _QuietStreamHandler()
    )
    if _is_for_people(settings) and sys.stdout.isatty():
        handler.addFilter(_is_no_farewell)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # No line tells thread or process, and finding them out is half of making a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("gunicorn.error", "gunicorn.access", "werkzeug", "alembic", "flask_cors"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Added once, however often this runs: `addFilter` skips a filter that is there.
    logging.getLogger("werkzeug").addFilter(_is_no_request_line)


def _is_no_request_line(record: logging.LogRecord) -> bool:
    """Drop the line of Flask's development server about a request: the access log has it."""
    return not str(record.msg).rstrip().endswith('"%s" %s %s')


def _is_for_people(settings: Settings) -> bool:
    """Return whether lines are for people: as chosen, otherwise where they go to a terminal."""
    if settings.log_format:
        return settings.log_format == "console"
    return settings.log_file is None and sys.stdout.isatty()


# What Gunicorn and the worker log at each stop; on a terminal somebody has just pressed Ctrl-C.
_FAREWELLS = re.compile(r"Handling signal|Worker exiting|Shutting down|worker\.stopped")


def _is_no_farewell(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO:
        return True
    text = record.msg.get("event", "") if isinstance(record.msg, dict) else record.msg
    return not _FAREWELLS.match(str(text))


def _file_handler(settings: Settings, path: Path) -> logging.Handler:
    try:
        if path.is_relative_to(settings.instance_dir):
            make_folder(path.parent)
            return _PrivateFileHandler(path, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        return _QuietFileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(["LOG_FILE: must be the path of a writable file"]) from exc


class _QuietStreamHandler(logging.StreamHandler[Any]):
    """A log that cannot be written must not stop the service, nor write about it in a loop."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base
        """Let the line go."""


class _QuietFileHandler(logging.handlers.WatchedFileHandler):
    """The same for a file: a full disk costs lines, not requests. Reopened when it was moved."""

    _looks_again_at = 0.0

    def reopenIfNeeded(self) -> None:  # noqa: N802 - name of the base
        """Look once in a while whether the file was moved, and not for every line."""
        now = time.monotonic()
        if now >= self._looks_again_at:
            self._looks_again_at = now + MOVED_FILE_SECONDS
            super().reopenIfNeeded()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or let it go where the file cannot even be reopened."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base
        """Let the line go."""


class _PrivateFileHandler(_QuietFileHandler):
    """The same for a file that nobody but its owner reads, also after it was moved away."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        make_file(path)
        super().__init__(path, encoding=encoding)

    def reopenIfNeeded(self) -> None:  # noqa: N802 - name of the base
        """Make the file anew where it was moved."""
        if time.monotonic() >= self._looks_again_at:
            make_file(Path(self.baseFilename))
        super().reopenIfNeeded()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """The one formatter. A library's line whose arguments do not fit is written as it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if isinstance(record, _RenderedRecord):
            return record.msg
        try:
            return super().format(record)
        except (TypeError, ValueError, KeyError):
            record = copy(record)
            record.msg, record.args = f"{record.msg} {record.args!r}", None
            return super().format(record)


class _RenderedRecord(logging.LogRecord):
    """A line of the log that is already what it is to be."""

    msg: str


class AccessLog:
    """Writes the line about each request, in the form of all others.

    The way through structlog costs as much as checking the token: 0.15 ms.
    """

    NAME = "userapi.access"

    def __init__(self, settings: Settings) -> None:
        self._structured = structlog.get_logger(self.NAME) if _is_for_people(settings) else None
        self._logger = logging.getLogger(self.NAME)

    def write(self, fields: Mapping[str, Any]) -> None:
        """Write one line."""
        if self._structured is not None:
            self._structured.info("request", **fields)
        elif self._logger.isEnabledFor(logging.INFO):
            event = {
                "timestamp": rfc3339(_clock.now()),
                "level": "info",
                "logger": self.NAME,
                "event": "request",
                **fields,
            }
            line = _render_json(None, "info", event)
            self._logger.handle(
                _RenderedRecord(self.NAME, logging.INFO, "", 0, line, args=None, exc_info=None)
            )


def _add_timestamp(_logger: Any, _method: str, event: Event) -> Event:
    event["timestamp"] = rfc3339(_clock.now())
    return event


def _mask_secrets(_logger: Any, _method: str, event: Event) -> Event:
    for key in event.keys() & SECRET_KEYS:
        event[key] = "***"
    return event


def _render_json(_logger: Any, _method: str, event: Event) -> str:
    """Return one line. What JSON cannot hold, or is endless, is written as plain short text."""
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
    # Other controls than those of ASCII stand inside of strings, where JSON may spell them out.
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
        # The end of a traceback says what went wrong.
        text = f"{text[: MAX_TEXT // 2]}…{text[-MAX_TEXT // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _escape_controls(_logger: Any, _method: str, event: Event) -> Event:
    """Spell out what would begin a new line or command a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped(value)
    return event


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    """Write a traceback for people, without local variables, which would show secrets."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    for line in text.getvalue().splitlines():
        out.write("\n" + escaped(line))
