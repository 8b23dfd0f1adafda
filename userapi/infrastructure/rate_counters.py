"""Counting requests: how many a caller has made in the current window of a rate limit.

In Redis for all processes (`redis_rate_counter`); in the memory of this process without Redis or
while it is unavailable. A window begins with its first request. Each count is one atomic operation,
so concurrent requests get no more than consecutive ones.
"""

import threading
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self
from uuid import UUID

from cachetools import TLRUCache

from userapi.clock import Clock
from userapi.infrastructure.redis_commands import Command

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_USER_PREFIX = "user:"
# Above this number of callers in one process, the window that was used least recently is dropped.
MAX_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of requests per window of a number of seconds."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rate of a setting such as "20/minute"."""
        amount, _, unit = text.partition("/")
        return cls(int(amount), _SECONDS[unit])


@dataclass(frozen=True, slots=True)
class Hit:
    """The number of a request in its window, and when the window ends."""

    count: int
    seconds_left: float


class Condition(NamedTuple):
    """Is met if the value at a key of Redis begins with `met`, undecided with `undecided`.

    It is undecided for a missing value as well.
    """

    key: str
    met: str
    undecided: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a condition is met, and the hit that was counted if it is.

    `is_met` is None if Redis could not decide. `reply` is the reply of Redis to the lookup; None if
    Redis is unavailable.
    """

    hit: Hit | None = None
    is_met: bool | None = None
    reply: object = None


def key_of_user(user_id: UUID) -> str:
    """Return the key that counts the requests of a user."""
    return f"{_USER_PREFIX}{user_id}"


def user_of_key(key: str) -> UUID | None:
    """Return the user whose requests a key counts; None for other keys."""
    return UUID(key[len(_USER_PREFIX) :]) if key.startswith(_USER_PREFIX) else None


class RateCounter(Protocol):
    """Counts requests by key."""

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request in a window of so many seconds."""
        ...

    def hit_if(
        self, user_id: UUID, *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Execute `after`, then count a request of a user if the condition is met.

        Both are one round trip. The condition and `after` concern keys of the same user.
        """
        ...

    def hit_of(
        self, owner_id: UUID, key: str, *, seconds: int, after: Command | None
    ) -> tuple[Hit, object]:
        """Execute `after`, then count a request; return the count and the reply to `after`.

        Both are one round trip. `after` concerns keys of the same owner. The reply is None if
        `after` is, or if Redis is unavailable.
        """
        ...

    def count(self, key: str) -> int:
        """Return the number of requests in the current window."""
        ...

    def reset(self, key: str) -> None:
        """Begin a new window with the next request."""
        ...


@dataclass(slots=True)
class _Window:
    ends_at: float
    count: int = 0


class MemoryRateCounter:
    """Counts in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: TLRUCache[str, _Window] = TLRUCache(
            MAX_CALLERS, ttu=lambda _key, window, _now: window.ends_at, timer=self._now
        )

    def hit_if(
        self, user_id: UUID, *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Count nothing: without Redis the condition is undecided."""
        return Decision()

    def hit_of(
        self, owner_id: UUID, key: str, *, seconds: int, after: Command | None
    ) -> tuple[Hit, object]:
        """Count a request; there is no Redis to execute `after`."""
        return self.hit(key, seconds=seconds), None

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request."""
        now = self._now()
        with self._lock:
            window = self._windows.get(key)
            if window is None:
                self._windows[key] = window = _Window(now + seconds)
            window.count += cost
            return Hit(window.count, window.ends_at - now)

    def count(self, key: str) -> int:
        """Return the number of requests in the current window."""
        with self._lock:
            window = self._windows.get(key)
            return 0 if window is None else window.count

    def reset(self, key: str) -> None:
        """Begin a new window with the next request."""
        with self._lock:
            self._windows.pop(key, None)

    def _now(self) -> float:
        return self._clock.now().timestamp()
