"""Gunicorn's log and worker, with what they leave out: every line goes through the service's
formatter, the worker says "not ready" before it stops, no thread waits for a slow request or for a
client that does not close, and requests that never reach the application are refused as all others
are, with a line in the log.
"""

import http
import re
import secrets
import select
import selectors
import signal
import socket
import struct
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

import orjson
import structlog
from gunicorn import glogging
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from userapi.observability import configure_logging
from userapi.settings import Settings, faults_end_the_process

access_log = structlog.get_logger("userapi.access")
log = structlog.get_logger(__name__)

# Sent by the master before it stops its workers.
DRAIN_SIGNAL = signal.SIGUSR2

# For a request to come in whole, and for each piece of a body that is too large to be waited for.
ARRIVAL_SECONDS = 15
PIECE_SECONDS = 10
LONGEST_HEAD = LONGEST_AWAITED_BODY = 64 * 1024
# For a body that nobody has read: what has come by now is taken, the rest is not waited for.
LEFT_OVER_SECONDS = 0.05
# For the next request of a connection to come before its thread serves another.
PAUSE_MILLISECONDS = 2
# For a client to read its last answer and close; more bytes than the longest body that is taken.
LINGER_SECONDS = 5
LINGER_BYTES = 16 * 1024 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")
_EXPECTS = re.compile(rb"\r\nexpect:", re.IGNORECASE)


class TooSlow(errors.ParseException):  # type: ignore[misc]  # gunicorn has no annotations
    """The request did not come in within `ARRIVAL_SECONDS`."""


_REFUSALS: dict[type[errors.ParseException], tuple[int, str, str]] = {
    TooSlow: (408, "request_timeout", "The request took too long to come in."),
    errors.LimitRequestLine: (414, "uri_too_long", "The request line is too long."),
    errors.LimitRequestHeaders: (431, "headers_too_large", "The headers are too large."),
    errors.ExpectationFailed: (417, "expectation_failed", "The expectation cannot be met."),
    errors.UnsupportedTransferCoding: (501, "not_implemented", "This coding is not supported."),
    errors.ForbiddenProxyRequest: (403, "forbidden", "This proxy is not trusted."),
}
_MALFORMED = (400, "malformed_request", "The request is not well-formed HTTP.")
_FAULTS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no annotations
    """Gunicorn's own lines, written as all others from the first one on."""

    def setup(self, cfg: Any) -> None:
        """Set up the log once more after Gunicorn has: at the start, and when it reloads."""
        super().setup(cfg)
        with faults_end_the_process():
            configure_logging(Settings.load())


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """The threaded worker that the service runs in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lingering: dict[Any, None] = {}  # Connections, the oldest first.
        self._may_wait = threading.Semaphore(self.cfg.threads // 2)

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

    def handle(self, conn: Any) -> Any:
        """Give a thread to a request that has come in, and leave others with the poller.

        Gunicorn's own threads wait for the rest of a request as long as its client likes: as many
        slow clients as there are threads would stop the service.
        """
        if conn.cfg.is_ssl:
            return super().handle(conn)
        while True:
            try:
                if not _has_come(conn):
                    return _DEFER
            except errors.ParseException as exc:
                self.handle_error(None, conn.sock, conn.client, exc)
                return False
            except OSError:
                return False  # The client is gone.
            result = super().handle(conn)
            if result is not True or not self._next_comes(conn):
                return result

    def _next_comes(self, conn: Any) -> bool:
        """Wait a moment for the next request of a client that sends one after another.

        Handing the connection back to the poller and out to a thread again costs more than many
        an answer does. Half of the threads never wait.
        """
        if not self.alive or not self._may_wait.acquire(blocking=False):
            return False
        try:
            if conn.parser.unreader.buf.getvalue():
                return True
            poll = getattr(conn, "poll", None)
            if poll is None:
                poll = conn.poll = select.poll()
                poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(PAUSE_MILLISECONDS))
        finally:
            self._may_wait.release()

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        """Tell whether the next request may come: not after a body that is still on its way.

        Gunicorn's own thread waits five seconds for the rest of what nobody wants to read.
        """
        until = time.monotonic() + LEFT_OVER_SECONDS
        return bool(keepalive) and bool(conn.parser.finish_body(deadline=until))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Keep the connection or end it, and wait for no client.

        Gunicorn's own waits up to two seconds for the client to close, in the one thread that takes
        all connections: a client that asks for "Connection: close" and stays would stop all.
        """
        if conn.cfg.is_ssl or fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def murder_pending(self) -> None:
        """Close the connections whose clients took too long: to ask, or to close."""
        super().murder_pending()
        now = time.monotonic()
        for conn in list(self._lingering):
            if now < conn.timeout:
                break
            self._end(conn)

    def _linger(self, conn: Any) -> None:
        """Close our half and throw away what still comes (RFC 9112 §9.6).

        To close at once would reset the connection of a client that is still sending its body, and
        the answer would be lost to it.
        """
        conn.timeout, conn.bytes_left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
        self._lingering[conn] = None
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._throw_away, conn))
        except OSError:
            self._end(conn)  # The client is gone.

    def _throw_away(self, conn: Any, sock: socket.socket) -> None:
        try:
            size = len(sock.recv(256 * 1024))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        conn.bytes_left -= size
        if not size or conn.bytes_left <= 0:
            self._end(conn)

    def _end(self, conn: Any) -> None:
        del self._lingering[conn]
        if conn.sock in self.poller.get_map():
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

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


def _has_come(conn: Any) -> bool:
    """Take what has come without waiting; tell whether it is worth a thread.

    Raises TooSlow and LimitRequestHeaders for what will not come to an end.
    """
    if not conn.initialized:
        conn.init()
        conn.data_ready = True
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, limit, struct.pack("ll", PIECE_SECONDS, 0))
    arrival: Arrival = vars(conn).pop("arrival", None) or Arrival()
    buffer = conn.parser.unreader.buf
    while not arrival.is_whole(received := buffer.getvalue()):
        try:
            piece = conn.sock.recv(LONGEST_HEAD, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if received:
                arrival.require_time_left()
                conn.arrival = arrival
            return False
        if not piece:
            break  # Gunicorn finds out what is missing.
        buffer.seek(0, 2)
        buffer.write(piece)
    return True


class Arrival:
    """A request that is coming in: until when it may, and how far its chunks are known."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._known_chunks = 0

    def require_time_left(self) -> None:
        """Raise TooSlow when it has been coming in for too long."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + ARRIVAL_SECONDS
        if now > self._until:
            raise TooSlow()

    def is_whole(self, received: bytes) -> bool:
        """Tell whether a request has come with its body, or needs no more to be answered.

        A long body is read by the view, which asks first who sends it. What is no HTTP counts as
        whole: the parser refuses it. Raises LimitRequestHeaders.
        """
        end = received.find(b"\r\n\r\n")
        if end < 0:
            if len(received) > LONGEST_HEAD:
                raise errors.LimitRequestHeaders("the head is too long")
            return False
        head, size = received[: end + 2], len(received) - end - 4
        if _EXPECTS.search(head):
            return True
        if _CHUNKED.search(head):
            return size > LONGEST_AWAITED_BODY or self._has_last_chunk(received, end + 4)
        length = _LENGTH.search(head)
        if length is None or len(length[1]) > 9:
            return True
        return int(length[1]) > LONGEST_AWAITED_BODY or size >= int(length[1])

    def _has_last_chunk(self, received: bytes, begin: int) -> bool:
        """Go from chunk to chunk (RFC 9112 §7.1): an empty line may stand inside of one, too."""
        position = max(begin, self._known_chunks)
        while (line := _CHUNK.match(received, position)) and int(line[1], 16):
            following = line.end() + int(line[1], 16) + 2
            if following > len(received):
                return False
            if received[following - 2 : following] != b"\r\n":
                return True
            self._known_chunks = position = following
        if line is None:
            return b"\r\n" in received[position:]
        # With trailers or without, an empty line is the end.
        return b"\r\n\r\n" in received[line.end() - 2 :]


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
