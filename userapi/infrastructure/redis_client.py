"""A client of Redis that never raises: short time-outs, and a circuit breaker.

Every caller receives the replies, or None while Redis is unavailable. Commands of one call cost one
round trip. They are sent on plain connections of redis-py: its client would spend twice the time
of a request on retries, events and pools that are not needed here.

Each connection knows the id of the server process that it reaches. A script that receives it can
check whether a value was stored by this process, or by another one before a failover.
"""

import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import redis
from redis.exceptions import (
    AskError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from userapi.infrastructure.circuit_breaker import CircuitBreaker
from userapi.infrastructure.redis_commands import (
    SERVER_ID,
    SERVER_ID_CHARACTERS,
    Command,
    Word,
)
from userapi.infrastructure.redis_pools import connection_pool, master_watch

# A request that finds Redis unavailable takes less than 50 ms longer.
TIMEOUT_SECONDS = 0.04
_REDIRECTIONS = (AskError, MovedError, TryAgainError)
# Redis before 7.0 reports the errors of commands in scripts behind other text. redis-py has no
# class for the error of a master that has lost its replicas.
_UNUSABLE = re.compile(r"(?:^|-)(?:READONLY|MASTERDOWN|NOREPLICAS) ")


class ServerUnusable(redis.ConnectionError):
    """The server rejects writes because of a failover; another connection may reach the master."""


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


class Redis:
    """Connections to Redis behind a circuit breaker. Each process opens its own when needed."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        breaker: CircuitBreaker | None = None,
        is_cluster_node: bool = False,
    ) -> None:
        """`timeout_seconds` limits the time to connect, and the wait for each reply.

        A node of a Cluster may reply that another one has the keys: `execute` returns this error.
        """
        self._breaker = breaker or CircuitBreaker()
        self._returns_redirections = is_cluster_node
        # Only creates connections with the options of the URL; it does not pool them.
        self._factory = connection_pool(
            url, timeout_seconds=timeout_seconds, retry=None, protocol=2, driver_info=None
        )
        self._master = master_watch(self._factory)
        self._process = os.getpid()
        self._idle: deque[_Link] = deque()
        self._server_id = b""

    def is_unavailable(self, tag: str) -> bool:
        """Return whether the last call failed."""
        return not self._breaker.is_closed

    def reconnected_within(self, seconds: float, tag: str) -> bool:
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

    def execute_each(self, commands: Sequence[Command]) -> list[Command]:
        """Execute commands, and return all of them if Redis is unavailable.

        Afterwards the Sentinels are queried for the master: a former one may accept commands for a
        while, and then loses them.
        """
        if self.execute(*commands) is None:
            return list(commands)
        if self._master is None or not self._master.has_changed_now():
            return []
        self._reconnect()
        return [] if self.execute(*commands) is not None else list(commands)

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
            self._reconnect()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _reconnect(self) -> None:
        """Use no open connection again, whether it is idle or in use now."""
        self._server_id = b""
        self.close()

    def _send(self, link: _Link, commands: tuple[Command, ...]) -> list[Any]:
        connection, server_id = link.connection, link.server_id
        packed = b"".join([server_id.join(command.pieces) for command in commands])
        connection.send_packed_command([packed], check_health=False)
        replies = [_read(connection) for _ in commands]
        for index, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                words = commands[index].with_script_text().words
                connection.send_command(*[server_id if w is SERVER_ID else w for w in words])
                replies[index] = reply = _read(connection)
            if isinstance(reply, ResponseError):
                if self._returns_redirections and isinstance(reply, _REDIRECTIONS):
                    continue
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
