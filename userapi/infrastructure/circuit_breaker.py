"""The circuit breaker of Redis: after a failure, callers skip Redis instead of waiting for it."""

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

OPEN_SECONDS = 2.0


class CircuitBreaker:
    """Rejects calls for a while after a failure; then allows one call as a trial."""

    def __init__(
        self,
        open_seconds: float = OPEN_SECONDS,
        *,
        recovering: bool = False,
        server: str | None = None,
        seconds_now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`recovering` means that a series of failures has ended now. `server` is logged."""
        self._log = log if server is None else log.bind(server=server)
        self._open_seconds = open_seconds
        self._seconds_now = seconds_now
        self._lock = threading.Lock()
        self._open_until = 0.0
        self._failures = 0
        self._closed_at = seconds_now() if recovering else None

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
            self._log.info("redis.back", failures=failures)

    def failed(self, error: Exception) -> None:
        """Reject calls for a while."""
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            self._open_until = self._seconds_now() + self._open_seconds
        if first:
            self._log.warning("redis.unavailable", error=type(error).__name__)
