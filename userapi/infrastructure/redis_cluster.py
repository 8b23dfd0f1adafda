"""A Redis Cluster: each command goes to the server that owns the slot of its keys.

Every server has a circuit breaker and idle connections of its own, so one that fails concerns only
the keys of its slots. The owners of the slots are read when they are needed first, and again when a
server does not reply: the Cluster may have promoted its replica. A slot that is being moved to
another server does not interrupt anything, because both servers redirect commands.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from userapi.infrastructure.circuit_breaker import OPEN_SECONDS, CircuitBreaker
from userapi.infrastructure.redis_client import TIMEOUT_SECONDS, Redis
from userapi.infrastructure.redis_commands import Command, command
from userapi.infrastructure.redis_slots import ClusterSlots, slot_of
from userapi.settings.redis_urls import Address, parse_cluster_url

log = structlog.get_logger(__name__)

# Reading the owners of 16384 slots takes several milliseconds of computation.
READ_AGAIN_SECONDS = 0.5
_ASKING = command("ASKING")


class RedisCluster:
    """The servers of a Cluster that own slots. Each process opens its own connections."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        """`timeout_seconds` limits the time to connect, and the wait for each reply.

        A server that failed is tried again after `open_seconds`.
        """
        self._url = parse_cluster_url(url)
        self._timeout_seconds = timeout_seconds
        self._open_seconds = open_seconds
        self._slots = ClusterSlots(self._url, timeout_seconds=timeout_seconds)
        self._owners: dict[int, Address] = {}
        self._servers: dict[Address, Redis] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._next_read = 0.0
        self._is_lost = False

    def execute(self, *commands: Command) -> list[Any] | None:
        """Return the reply to each command; None while the server of their keys is unavailable."""
        replies = self._replies(commands)
        if replies is None or any(isinstance(reply, ResponseError) for reply in replies):
            return None
        return replies

    def execute_each(self, commands: Sequence[Command]) -> list[Command]:
        """Execute commands, and return those whose servers are unavailable."""
        batches: dict[Address | None, list[Command]] = {}
        self._server_of(slot_of(commands[0].key))
        for each in commands:
            batches.setdefault(self._owners.get(slot_of(each.key)), []).append(each)
        failed = []
        for batch in batches.values():
            replies = self._replies(batch) or [ResponseError()] * len(batch)
            pairs = zip(batch, replies, strict=True)
            failed += [each for each, reply in pairs if isinstance(reply, ResponseError)]
        return failed

    def is_unavailable(self, tag: str) -> bool:
        """Return whether the last call of the server of the keys with this tag failed."""
        server = self._server_of(slot_of(tag))
        return server is None or server.is_unavailable(tag)

    def reconnected_within(self, seconds: float, tag: str) -> bool:
        """Return whether the server of the keys with this tag replied again less than that ago.

        A server that has begun to own slots counts like one that replies again: other processes may
        still send their invalidations to the former owner, which has failed.
        """
        server = self._server_of(slot_of(tag))
        return server is not None and server.reconnected_within(seconds, tag)

    def close(self) -> None:
        """Close the idle connections; the next call opens one again."""
        for server in list(self._servers.values()):
            server.close()
        self._slots.close()

    def _replies(self, commands: Sequence[Command]) -> list[Any] | None:
        """Return the reply to each command, or the error of one that no server has executed.

        They go to the server of the first one, and None means that it is unavailable.
        """
        slot = slot_of(commands[0].key)
        server = self._server_of(slot)
        replies = server.execute(*commands) if server is not None else None
        if replies is None:
            self._read_owners(failed=self._owners.get(slot))
            other = self._server_of(slot)
            if other is None or other is server:
                return None
            replies = other.execute(*commands)
        if replies is None:
            return None
        return [
            self._redirected(each, reply) if isinstance(reply, ResponseError) else reply
            for each, reply in zip(commands, replies, strict=True)
        ]

    def _redirected(self, redirected: Command, error: ResponseError) -> Any:
        """Return the reply of the server that an error names, or an error."""
        if not isinstance(error, MovedError | AskError) or not error.host:
            return error
        address = (error.host, error.port)
        server = self._server_at(address)
        if isinstance(error, MovedError):
            self._owners[error.slot_id] = address
            replies = server.execute(redirected)
        else:
            # ASKING is valid for one command, so a script cannot be sent again with its text.
            replies = server.execute(_ASKING, redirected.with_script_text())
        return error if replies is None else replies[-1]

    def _server_of(self, slot: int) -> Redis | None:
        address = self._owners.get(slot)
        if address is None:
            self._read_owners()
            address = self._owners.get(slot)
        return None if address is None else self._server_at(address)

    def _server_at(self, address: Address) -> Redis:
        server = self._servers.get(address)
        if server is None:
            with self._lock:
                server = self._servers.setdefault(address, self._new_server(address))
        return server

    def _new_server(self, address: Address) -> Redis:
        return Redis(
            self._url.server_url(address),
            timeout_seconds=self._timeout_seconds,
            breaker=CircuitBreaker(
                self._open_seconds,
                recovering=bool(self._owners) or self._is_lost,
                server="{}:{}".format(*address),
            ),
            is_cluster_node=True,
        )

    def _read_owners(self, *, failed: Address | None = None) -> None:
        """Read the owners of the slots, and wait for it no longer than for a reply.

        Nodes that do not reply delay one caller, once, however many they are. Before the first
        reply, every caller waits.
        """
        with self._lock:
            now, reader = time.monotonic(), self._reader
            if reader is not None and reader.is_alive():
                if self._owners or self._is_lost:
                    return
            elif now < self._next_read:
                return
            else:
                self._next_read = now + READ_AGAIN_SECONDS
                reader = self._reader = threading.Thread(
                    target=self._read, args=(failed,), name="redis-slots", daemon=True
                )
                reader.start()
        reader.join(self._timeout_seconds)

    def _read(self, failed: Address | None) -> None:
        try:
            owners = self._slots.owners(failed=failed)
        except (RedisError, OSError) as exc:
            if not self._is_lost:
                log.warning("redis.cluster_unavailable", error=type(exc).__name__)
            self._is_lost = True
            return
        masters = set(owners.values())
        with self._lock:
            for address in masters - set(self._owners.values()):
                self._servers[address] = self._new_server(address)
            former = [self._servers.pop(each) for each in self._servers.keys() - masters]
            self._owners, self._is_lost = owners, False
        for server in former:
            server.close()
