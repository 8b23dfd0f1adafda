"""Logs and correlation: one JSON object a line, for the service, Gunicorn and libraries alike."""

import logging
import logging.handlers
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from copy import copy
from itertools import islice
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
        _tame,
    ]
    console = settings.log_format == "console"
    # A plain traceback: the one that is chosen where `rich` is installed shows local variables, and
    # with them secrets.
    renderers: list[Any] = (
        [
            _escape_controls,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
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
        _Formatter(
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


def _tame(_logger: Any, _method: str, event: Event) -> Event:
    """Make every value plain, well-formed and short, and mask secrets by their names."""
    for key in list(event):
        if key in _KEPT_AS_THEY_ARE:
            continue
        name = _tame_text(key)
        event[name] = "***" if name.lower() in SECRET_KEYS else _tamed(event.pop(key))
    return event


# What structlog itself puts in for its last processors.
_KEPT_AS_THEY_ARE = frozenset({"_record", "_from_structlog", "exc_info", "stack_info"})
LONGEST_TEXT = 8192
MOST_ITEMS = 100
DEEPEST_LEVEL = 6


def _tamed(value: Any, level: int = 0) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return _tame_text(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if level < DEEPEST_LEVEL and isinstance(value, Mapping):
        return {
            name: "***" if name.lower() in SECRET_KEYS else _tamed(item, level + 1)
            for name, item in (
                (_tame_text(str(k)), v) for k, v in islice(value.items(), MOST_ITEMS)
            )
        }
    if level < DEEPEST_LEVEL and isinstance(value, list | tuple | set | frozenset):
        return [_tamed(item, level + 1) for item in islice(value, MOST_ITEMS)]
    try:
        return _tame_text(str(value))
    except Exception:  # Whatever a foreign object raises, the line about it is written.
        return f"<{type(value).__name__}>"


def _tame_text(text: str) -> str:
    """Return text of a bounded length that can be encoded; a lone surrogate is spelled out."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
    if text.isascii():
        return str(text)
    return text.encode("utf-8", "backslashreplace").decode()


def _escape_controls(_logger: Any, _method: str, event: Event) -> Event:
    """Spell out what would begin a new line or command a terminal."""
    for key in list(event):
        if key in _KEPT_AS_THEY_ARE:
            continue
        value = event.pop(key)
        event[_spelled_out(key)] = _spelled_out(value) if isinstance(value, str) else value
    return event


# Control characters, separators that some readers take for the end of a line, and those that
# change the direction of writing.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)


def _spelled_out(text: str) -> str:
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """The one formatter. A library's line whose arguments do not fit is written as it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if record.args and not isinstance(record.msg, dict):
            try:
                record.getMessage()
            except (TypeError, ValueError, KeyError):
                record = copy(record)
                record.msg, record.args = f"{record.msg} {record.args!r}", None
        return super().format(record)


def _name_message(_logger: Any, _method: str, event: Event) -> Event:
    event["message"] = event.pop("event", "")
    return event


_ORDER = ("timestamp", "level", "logger", "message", "correlation_id")


def _render_json(_logger: Any, _method: str, event: Event) -> str:
    ordered: dict[str, Any] = {key: event.pop(key) for key in _ORDER if key in event}
    ordered.setdefault("correlation_id", None)
    ordered.update(event)
    if len(ordered.get("exception") or "") > LONGEST_TRACEBACK:
        ordered["exception"] = "…" + ordered["exception"][-LONGEST_TRACEBACK:]
    line = orjson.dumps(_encodable(ordered), option=orjson.OPT_NON_STR_KEYS).decode()
    # What is left of the controls stands inside of strings, where JSON may spell it out.
    return line if line.isascii() and "\x7f" not in line else _spelled_out(line)


LONGEST_TRACEBACK = 32768


def _encodable(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with those texts tamed that came in after the others."""
    for key in ("exception", "stack", "message"):
        if isinstance(event.get(key), str) and not event[key].isascii():
            event[key] = event[key].encode("utf-8", "backslashreplace").decode()
    return event
