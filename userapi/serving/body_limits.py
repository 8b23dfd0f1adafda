"""Limits of request bodies that work without a proxy: size, completeness and time.

They count the bytes that are read, independent of headers and framing. A proxy in front has limits
of its own and passes complete requests; it also handles clients that are slow intentionally.
"""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout
from werkzeug.wsgi import LimitedStream, get_content_length

from userapi.infrastructure.deadlines import ends_within

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

BODY_LIMIT_BYTES = 64 * 1024
ARRIVAL_SECONDS = 30
# The seconds between the start of the request and its arrival from the proxy; see deploy/nginx.
SECONDS_AT_PROXY = "HTTP_X_REQUEST_SECONDS"

_BODY = "userapi.body"
# After an error, the rest of the body is read for a moment. Otherwise the connection is reset
# before the client has read the response (RFC 9112 §9.6).
_PAUSE_SECONDS = 0.1
_DISCARD_SECONDS = 2
_DISCARD_BYTES = 16 * 1024 * 1024
# The number of threads that do so. Clients that keep sending must not occupy all threads.
_discarding = threading.BoundedSemaphore(8)


class BoundedBody(io.RawIOBase):
    """A request body that raises an error if it is too large, incomplete or too slow.

    Reading raises RequestEntityTooLarge, BadRequest or RequestTimeout.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._length = get_content_length(environ)
        self._source: Any = environ["wsgi.input"]
        if "wsgi.input_terminated" not in environ:
            self._source = LimitedStream(self._source, self._length or 0)
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._limit = BODY_LIMIT_BYTES
        self._seconds = ARRIVAL_SECONDS - _seconds_at_proxy(environ)
        self._started = time.monotonic()
        self._count = 0
        self._ended = False

    def allow(self, *, limit: int, seconds: int) -> None:
        """Raise the limits."""
        self._limit = limit
        self._seconds += seconds - ARRIVAL_SECONDS

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer. Returns the number of bytes, 0 at the end of a complete body."""
        if self._ended:
            return 0
        if self._length is not None and self._length > self._limit:
            raise RequestEntityTooLarge("The body is too large.")
        data = self._read(min(len(buffer), self._limit + 1 - self._count))
        self._count += len(data)
        if self._count > self._limit:
            raise RequestEntityTooLarge("The body is too large.")
        if not data:
            if self._count < (self._length or 0):
                raise BadRequest("The body is shorter than its Content-Length.")
            self._ended = True
        buffer[: len(data)] = data
        return len(data)

    def discard(self) -> None:
        """Read and drop the rest of the body for a moment."""
        if self._ended or self._socket is None or not _discarding.acquire(blocking=False):
            return
        self._started, self._seconds = time.monotonic(), _DISCARD_SECONDS
        left = _DISCARD_BYTES
        self._socket.settimeout(_PAUSE_SECONDS)
        try:
            while left > 0 and (data := self._read(BODY_LIMIT_BYTES)):
                left -= len(data)
        except (BadRequest, RequestTimeout):
            return
        finally:
            _discarding.release()
            self._socket.settimeout(None)

    def cut(self) -> None:
        """Stop reading from the client. A response can still be sent."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RD)
            except OSError:
                return  # The client has disconnected.

    def _read(self, size: int) -> bytes:
        left = self._started + self._seconds - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            with self._watched(left):
                data: bytes = self._source.read(size)
        except (OSError, ParseException) as exc:
            self._ended = True
            if isinstance(exc, TimeoutError) or self._is_late():
                raise RequestTimeout("The body took too long to arrive.") from exc
            raise BadRequest("The body is incomplete or not well-formed HTTP.") from exc
        if self._is_late():
            self._ended = True
            raise RequestTimeout("The body took too long to arrive.")
        return data

    def _watched(self, seconds: float) -> AbstractContextManager[None]:
        return nullcontext() if self._socket is None else ends_within(self, seconds)

    def _is_late(self) -> bool:
        return time.monotonic() >= self._started + self._seconds


def allow_body(environ: dict[str, Any], *, limit: int, seconds: int) -> None:
    """Raise the limits of this request's body, after its sender is authenticated."""
    body: BoundedBody | None = environ.get(_BODY)
    if body is not None:
        body.allow(limit=limit, seconds=seconds)


def has_body(environ: dict[str, Any]) -> bool:
    """Return whether a request has a body, which may be empty."""
    return _BODY in environ


class BodyLimits:
    """WSGI middleware that limits the body of every request."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve the request, and drop the unread rest of its body."""
        body: BoundedBody | None = None
        if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
            environ[_BODY] = body = BoundedBody(environ)
        environ["wsgi.input"] = io.BytesIO() if body is None else io.BufferedReader(body)
        environ["wsgi.input_terminated"] = True
        try:
            return self._application(environ, start_response)
        finally:
            if body is not None:
                body.discard()


def _seconds_at_proxy(environ: dict[str, Any]) -> float:
    try:
        return max(0.0, float(environ.get(SECONDS_AT_PROXY, 0)))
    except ValueError:
        return 0.0
