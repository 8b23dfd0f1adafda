"""Pools of redis-py for the URL of Redis: a server, or the master that Sentinels name.

Each new connection starts with a question to a Sentinel, so it reaches the current master. A watch
of the master detects when open connections lead to a former one.
"""

import threading
import time
from typing import Any, cast

from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from userapi.settings.redis_urls import Address, SentinelUrl, is_sentinel_url, parse_sentinel_url

# For each wait. A Sentinel replies immediately or not at all, and others can be queried.
SENTINEL_MAX_SECONDS = 0.2
# After an ordered failover the former master accepts writes for several seconds more.
MASTER_CHECK_SECONDS = 1.0
# Requests must not wait every second for Sentinels that do not reply.
MASTER_CHECK_AGAIN_SECONDS = 10.0
# The callers limit how many are open. redis-py counts all that it ever made.
MAX_CONNECTIONS = 2**31


class SentinelsUnavailable(RedisConnectionError):
    """No Sentinel names a master."""


class Sentinels:
    """The Sentinels of a master. One that names no master is queried last from then on.

    Unlike redis-py's class, any number of threads can use an instance.
    """

    def __init__(self, url: SentinelUrl, *, timeout_seconds: float) -> None:
        """`timeout_seconds` limits the time to connect, and the wait for each reply."""
        self._addresses = url.sentinels
        self._lock = threading.Lock()
        self._options = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "retry": None,
            "protocol": 2,
            "driver_info": None,
            "ssl": url.uses_tls,
            **url.sentinel_options,
        }

    def discover_master(self, service_name: str) -> Address:
        """Return the address of the master. Raises SentinelsUnavailable."""
        for address in self._addresses:
            sentinel: Any = cast(Any, Sentinel)([address], sentinel_kwargs=self._options)
            try:
                host, port = sentinel.discover_master(service_name)
                return host, port
            except (MasterNotFoundError, ResponseError):
                self._put_last(address)
            finally:
                sentinel.close()
        raise SentinelsUnavailable("No Sentinel names a master.")

    def _put_last(self, address: Address) -> None:
        with self._lock:
            others = tuple(each for each in self._addresses if each != address)
            self._addresses = (*others, address)


class MasterWatch:
    """Queries the Sentinels, at most once a second, whether there is another master."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = cast(Any, pool)
        self._next_check = 0.0
        self._available_at = 0.0

    def has_changed(self) -> bool:
        """Return whether the master is another one than at the last check or connection."""
        if time.monotonic() < self._next_check:
            return False
        return self.has_changed_now()

    def has_changed_now(self) -> bool:
        """Return the same, even if the last check was less than a second ago."""
        now = time.monotonic()
        if now < self._available_at:
            return False
        self._next_check = now + MASTER_CHECK_SECONDS
        before = self._pool.master_address
        try:
            return before is not None and self._pool.get_master_address() != before
        except SentinelsUnavailable:
            self._next_check = self._available_at = now + MASTER_CHECK_AGAIN_SECONDS
            return False


def master_watch(pool: ConnectionPool) -> MasterWatch | None:
    """Return the watch of the master; None if the pool does not use Sentinels."""
    return MasterWatch(pool) if isinstance(pool, SentinelConnectionPool) else None


def connection_pool(url: str, *, timeout_seconds: float, **options: Any) -> ConnectionPool:
    """Return a pool of connections to the server or to the master; it connects when used.

    `timeout_seconds` limits the time to connect, and the wait for each reply. `options` are those
    of redis-py's connections. The options of the URL take precedence.
    """
    options |= {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "max_connections": MAX_CONNECTIONS,
    }
    if not is_sentinel_url(url):
        return ConnectionPool.from_url(url, **options)
    parts = parse_sentinel_url(url)
    sentinels = Sentinels(parts, timeout_seconds=min(timeout_seconds, SENTINEL_MAX_SECONDS))
    pool = cast(Any, SentinelConnectionPool)(
        parts.master,
        sentinels,
        ssl=parts.uses_tls,
        **{"protocol": 2, **options, **parts.server_options},
    )
    return cast(ConnectionPool, pool)
