"""Redis, as something that may be away: short time-outs, and a breaker that spares the others.

Whoever asks gets answers or None, never an error. Commands that are asked together cost one round
trip. They are sent on bare connections of redis-py: its client would spend twice the time of a
request on retries, events and pools that are of no use here.
"""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import redis
import structlog
from redis.connection import ConnectionPool
from redis.exceptions import NoScriptError, ResponseError

log = structlog.get_logger(__name__)

# With what a request does besides, whoever finds Redis away is answered less than 50 ms later.
TIMEOUT_SECONDS = 0.04
SPARED_SECONDS = 2.0
# Never exists.
PROBE_KEY = "userapi:probe"

Word = bytes | str | int


@dataclass(frozen=True, slots=True)
class Command:
    """A command in the form in which Redis reads it, made once however often it is sent."""

    words: tuple[Word, ...]
    packed: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", _packed(self.words))


def command(*words: Word) -> Command:
    """Return the command of these words."""
    return Command(words)


class CircuitBreaker:
    """Lets nobody through for a while after a failure; then one caller tries for all."""

    def __init__(
        self,
        spared_seconds: float = SPARED_SECONDS,
        *,
        seconds_now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spared_seconds = spared_seconds
        self._seconds_now = seconds_now
        self._lock = threading.Lock()
        self._spared_until = 0.0
        self._failures = 0
        self._back_at: float | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether everybody is let through."""
        return not self._failures

    def closed_within(self, seconds: float) -> bool:
        """Return whether a success has ended failures so short a time ago."""
        return self._back_at is not None and self._seconds_now() - self._back_at < seconds

    def lets_through(self) -> bool:
        """Return whether the caller may try. After a failure one in a while may."""
        if not self._failures:
            return True
        with self._lock:
            now = self._seconds_now()
            if now < self._spared_until:
                return False
            self._spared_until = now + self._spared_seconds
            return True

    def succeeded(self) -> None:
        """Let everybody through again."""
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            self._back_at = self._seconds_now()
        if failures:
            log.info("redis.back", failures=failures)

    def failed(self, error: Exception) -> None:
        """Spare everybody the wait for a while."""
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            self._spared_until = self._seconds_now() + self._spared_seconds
        if first:
            log.warning("redis.unavailable", error=type(error).__name__)


class Script:
    """A Lua script, which Redis runs in one piece."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _scripts[self._sha] = self

    def on(self, *keys: bytes | str, given: Sequence[Word] = ()) -> Command:
        """Return the command that runs the script on these keys."""
        return command("EVALSHA", self._sha, len(keys), *keys, *given)


class Connection(Protocol):
    """What is used of a connection of redis-py, most of which has no annotations."""

    def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...

    def send_command(self, *args: Word) -> None: ...

    def read_response(self, disable_decoding: bool = False) -> Any: ...

    def disconnect(self) -> None: ...


_scripts: dict[Word, Script] = {}


class Redis:
    """Connections to Redis behind a breaker; made when first needed, in each process anew."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """A connection, and each answer, may take `timeout_seconds`."""
        self._breaker = breaker or CircuitBreaker()
        # Makes connections as the URL wants them, and is not asked to keep any.
        self._factory = ConnectionPool.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=None,
            protocol=2,
            driver_info=None,
        )
        self._process = os.getpid()
        self._idle: deque[Connection] = deque()

    @property
    def is_spared(self) -> bool:
        """Return whether Redis was away when somebody last tried."""
        return not self._breaker.is_closed

    def came_back_within(self, seconds: float) -> bool:
        """Return whether Redis was away and has answered again only so short a time ago."""
        return self._breaker.closed_within(seconds)

    def ask(self, *commands: Command) -> list[Any] | None:
        """Return an answer to each command, or None where Redis is away.

        A Redis that is away costs one caller a time-out, and then nobody for a while.
        """
        if not self._breaker.lets_through():
            return None
        try:
            answers = self._exchange(commands)
        except (redis.RedisError, OSError) as exc:
            self._breaker.failed(exc)
            return None
        self._breaker.succeeded()
        return answers

    def close(self) -> None:
        """Close the connections that nobody uses; the next question opens one again."""
        while self._idle:
            self._idle.pop().disconnect()

    def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        connection = self._idle_connection()
        if connection is not None:
            try:
                return self._converse(connection, commands)
            except (redis.ConnectionError, OSError):
                # Closed while it was idle, as a restart does to all: that is no outage yet.
                self.close()
        return self._converse(cast(Connection, self._factory.make_connection()), commands)

    def _idle_connection(self) -> Connection | None:
        if self._process != os.getpid():
            # A child that shared its parent's sockets would read its parent's answers.
            self._process, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _converse(self, connection: Connection, commands: tuple[Command, ...]) -> list[Any]:
        packed = b"".join([command.packed for command in commands])
        connection.send_packed_command([packed], check_health=False)
        answers = [_read(connection) for _ in commands]
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                _, script, *rest = commands[index].words
                connection.send_command("EVAL", _scripts[script].text, *rest)
                answers[index] = answer = _read(connection)
            if isinstance(answer, ResponseError):
                self._idle.append(connection)
                raise answer
        self._idle.append(connection)
        return answers


def require_writable(client: redis.Redis) -> None:
    """Raise RedisError unless Redis accepts writes now.

    A full Redis, a replica and one that cannot save answer PING and reads, but refuse what sessions
    and counts need. A write is refused before it is looked at, so one without an effect is enough:
    SET with XX changes only a key that exists.
    """
    client.set(PROBE_KEY, "", xx=True, px=1)


def _packed(words: tuple[Word, ...]) -> bytes:
    """Return a command as Redis reads it, in half of the time that redis-py takes."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _read(connection: Connection) -> Any:
    """Return an answer or, as one of several may be a refusal, the refusal."""
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as exc:
        return exc
