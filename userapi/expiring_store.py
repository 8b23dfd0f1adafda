"""Redis, as something that may be away: short time-outs, and a breaker that spares the others."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

TIMEOUT_SECONDS = 0.1
SPARED_SECONDS = 2.0


class CircuitBreaker:
    """Lets nobody through for a while after a failure; then one caller tries for all."""

    def __init__(self, spared_seconds: float = SPARED_SECONDS) -> None:
        self._spared_seconds = spared_seconds
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._failed = False

    def lets_through(self) -> bool:
        """Tell whether the caller may try. After a failure one in a while may."""
        if not self._failed:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                return False
            self._closed_until = now + self._spared_seconds
            return True

    def succeeded(self) -> None:
        """Let everybody through again."""
        if self._failed:
            self._failed = False
            log.info("redis.back")

    def failed(self, error: Exception) -> None:
        """Spare everybody the wait for a while."""
        with self._lock:
            first = not self._failed
            self._failed = True
            self._closed_until = time.monotonic() + self._spared_seconds
        if first:
            log.warning("redis.unavailable", error=type(error).__name__)


class Redis:
    """A connection pool to Redis behind a breaker."""

    def __init__(self, url: str) -> None:
        self.client: redis.Redis = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=None,
            protocol=2,
        )
        self._breaker = CircuitBreaker()

    def ask(self, question: Callable[[redis.Redis], Result]) -> Result | None:
        """Return the answer, or None where Redis is away: a dead one costs one time-out a while."""
        if not self._breaker.lets_through():
            return None
        return self.insist(question)

    def insist(self, question: Callable[[redis.Redis], Result]) -> Result | None:
        """Ask even where nobody else is let through; for what others rely on."""
        try:
            answer = question(self.client)
        except (redis.RedisError, OSError) as exc:
            self._breaker.failed(exc)
            return None
        self._breaker.succeeded()
        return answer
