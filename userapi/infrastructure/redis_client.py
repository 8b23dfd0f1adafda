"""A client of Redis that never raises: short time-outs, and a circuit breaker.

Every caller receives the replies, or None while Redis is unavailable. Commands of one call cost one
round trip. They are sent on plain connections of redis-py: its client would spend twice the time
of a request on retries, events and pools that are not needed here.

Each connection knows the id of the server process that it reaches. A script that receives it can
tell whether a value was stored by this very process, or by another one that failed over.
"""

import hashlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import redis
import structlog
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, ResponseError

from userapi.infrastructure.redis_pools import connection_pool, master_watch

log = structlog.get_logger(__name__)

# A request that finds Redis unavailable takes less than 50 ms longer.
TIMEOUT_SECONDS = 0.04
OPEN_SECONDS = 2.0
# Never exists.
PROBE_KEY = "userapi:probe"

SERVER_ID_CHARACTERS = 8
# Redis before 7.0 reports the errors of commands in scripts behind other text. redis-py has no
# class for the error of a master that has lost its replicas.
_UNUSABLE = re.compile(r"(?:^|-)(?:READONLY|MASTERDOWN|NOREPLICAS) ")


class ServerUnusable(redis.ConnectionError):
    """The server rejects writes because of a failover; another connection may reach the master."""


class ServerId:
    """A word that each connection replaces by the id of its server process."""


SERVER_ID = ServerId()
Word = bytes | str | int | ServerId


@dataclass(frozen=True, slots=True)
class Command:
    """A command in the protocol of Redis, encoded once and sent any number of times.

    `pieces` is the encoded command, cut where the id of the server belongs.
    """

    words: tuple[Word, ...]
    pieces: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", _encoded(self.words))


def command(*words: Word) -> Command:
    """Return the command with these words."""
    return Command(words)


class CircuitBreaker:
    """Rejects calls for a while after a failure; then allows one call as a trial."""

    def __init__(
        self,
        open_seconds: float = OPEN_SECONDS,
        *,
        seconds_now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_seconds = open_seconds
        self._seconds_now = seconds_now
        self._lock = threading.Lock()
        self._open_until = 0.0
        self._failures = 0
        self._closed_at: float | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether every call is allowed."""
        return not self._failures

    def closed_within(self, seconds: float) -> bool:
        """Return whether a success has ended a series of failures less than `seconds` ago."""
        return self._closed_at is not None and self._seconds_now() - self._closed_at < seconds

    def allows_call(self) -> bool:
        """Return whether the caller may try. While open, one trial per interval may."""
        if not self._failures:
            return True
        with self._lock:
            now = self._seconds_now()
            if now < self._open_until:
                return False
            self._open_until = now + self._open_seconds
            return True

    def succeeded(self) -> None:
        """Allow every call again."""
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            self._closed_at = self._seconds_now()
        if failures:
            log.info("redis.back", failures=failures)

    def failed(self, error: Exception) -> None:
        """Reject calls for a while."""
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            self._open_until = self._seconds_now() + self._open_seconds
        if first:
            log.warning("redis.unavailable", error=type(error).__name__)


class Script:
    """A Lua script, which Redis executes atomically."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _scripts[self._sha] = self

    def on(self, *keys: bytes | str, arguments: Sequence[Word] = ()) -> Command:
        """Return the command that executes the script with these keys and arguments."""
        return command("EVALSHA", self._sha, len(keys), *keys, *arguments)


class Connection(Protocol):
    """The part of redis-py's connections that is used here; most of it has no annotations."""

    def connect(self) -> None: ...

    def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...

    def send_command(self, *args: Word) -> None: ...

    def read_response(self, disable_decoding: bool = False) -> Any: ...

    def disconnect(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection and the id of the server process at its other end."""

    connection: Connection
    server_id: bytes


_scripts: dict[Word, Script] = {}


class Redis:
    """Connections to Redis behind a circuit breaker. Each process opens its own when needed."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """`timeout_seconds` limits the time to connect, and the wait for each reply."""
        self._breaker = breaker or CircuitBreaker()
        # Only creates connections with the options of the URL; it does not pool them.
        self._factory = connection_pool(
            url, timeout_seconds=timeout_seconds, retry=None, protocol=2, driver_info=None
        )
        self._master = master_watch(self._factory)
        self._process = os.getpid()
        self._idle: deque[_Link] = deque()
        self._server_id = b""

    @property
    def is_unavailable(self) -> bool:
        """Return whether the last call failed."""
        return not self._breaker.is_closed

    def reconnected_within(self, seconds: float) -> bool:
        """Return whether Redis was unavailable and replied again less than `seconds` ago."""
        return self._breaker.closed_within(seconds)

    def execute(self, *commands: Command) -> list[Any] | None:
        """Return the reply to each command, or None while Redis is unavailable.

        An unavailable Redis costs one caller a time-out, and then no caller for a while.
        """
        if not self._breaker.allows_call():
            return None
        try:
            replies = self._exchange(commands)
        except (redis.RedisError, OSError) as exc:
            self._breaker.failed(exc)
            return None
        self._breaker.succeeded()
        return replies

    def close(self) -> None:
        """Close the idle connections; the next call opens one again."""
        while self._idle:
            self._idle.pop().connection.disconnect()

    def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        link = self._idle_link()
        if link is not None:
            try:
                return self._send(link, commands)
            except (redis.ConnectionError, OSError):
                # Closed while it was idle, as all are after a restart, or to a server that is no
                # longer the master: that is no outage yet.
                self.close()
        return self._send(self._connect(), commands)

    def _connect(self) -> _Link:
        connection = cast(Connection, self._factory.make_connection())
        # Without it, redis-py would send the first command to localhost instead of the master.
        connection.connect()
        connection.send_command("INFO", "server")
        link = _Link(connection, _server_id(_require(_read(connection))))
        if link.server_id != self._server_id:
            # Another process serves this address now: a restart, or a failover.
            self._server_id = link.server_id
            self.close()
        return link

    def _idle_link(self) -> _Link | None:
        if self._process != os.getpid():
            # A child that shared its parent's sockets would read its parent's replies.
            self._process, self._idle = os.getpid(), deque()
        if self._master is not None and self._master.has_changed():
            self._server_id = b""
            self.close()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _send(self, link: _Link, commands: tuple[Command, ...]) -> list[Any]:
        connection, server_id = link.connection, link.server_id
        packed = b"".join([server_id.join(command.pieces) for command in commands])
        connection.send_packed_command([packed], check_health=False)
        replies = [_read(connection) for _ in commands]
        for index, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                _, script, *rest = commands[index].words
                words = [server_id if word is SERVER_ID else word for word in rest]
                connection.send_command("EVAL", _scripts[script].text, *words)
                replies[index] = reply = _read(connection)
            if isinstance(reply, ResponseError):
                if _is_unusable(reply):
                    connection.disconnect()
                    raise ServerUnusable("The server rejects writes.") from reply
                self._release(link)
                raise reply
        self._release(link)
        return replies

    def _release(self, link: _Link) -> None:
        """Keep a connection for later calls, unless another server has become the master."""
        if link.server_id == self._server_id:
            self._idle.append(link)
        else:
            link.connection.disconnect()


def require_writable(client: redis.Redis) -> None:
    """Raise RedisError unless Redis accepts writes now.

    A full Redis, a replica and one that cannot save reply to PING and reads, but reject the writes
    of sessions and counters. They reject before executing, so a write without effect is enough:
    SET with XX changes only a key that exists.
    """
    client.set(PROBE_KEY, "", xx=True, px=1)


def _encoded(words: tuple[Word, ...]) -> tuple[bytes, ...]:
    """Return a command in the protocol of Redis, in half of the time that redis-py needs."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        if isinstance(word, ServerId):
            pieces[-1] += b"$%d\r\n" % SERVER_ID_CHARACTERS
            pieces.append(b"\r\n")
        else:
            raw = word if isinstance(word, bytes) else str(word).encode()
            pieces[-1] += b"$%d\r\n%b\r\n" % (len(raw), raw)
    return tuple(pieces)


def _server_id(info: bytes) -> bytes:
    """Return the first digits of `run_id`, which a server process draws at random when it starts.

    Raises RedisError if the reply to INFO has none.
    """
    _, _, after = info.partition(b"run_id:")
    server_id = after[:SERVER_ID_CHARACTERS]
    if len(server_id) < SERVER_ID_CHARACTERS or not server_id.isalnum():
        raise redis.RedisError("INFO server reports no run_id")
    return server_id


def _is_unusable(error: ResponseError) -> bool:
    """Return whether an error means that another server is, or will be, the master."""
    is_known = isinstance(error, ReadOnlyError | MasterDownError)
    return is_known or _UNUSABLE.search(str(error)) is not None


def _require(reply: Any) -> Any:
    """Return a reply. Raises it if it is an error."""
    if isinstance(reply, ResponseError):
        raise reply
    return reply


def _read(connection: Connection) -> Any:
    """Return a reply. An error is returned as well, because other replies follow it."""
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as exc:
        return exc
