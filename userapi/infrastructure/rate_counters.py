"""Counting requests: how many a caller has made in the current window of a rate limit.

In Redis for all processes; in the memory of this process without Redis or while it is unavailable.
A window begins with its first request. Each count is one atomic operation, so concurrent requests
get no more than consecutive ones.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

from cachetools import TLRUCache

from userapi.clock import Clock
from userapi.infrastructure.redis_client import Command, Redis, Script, command

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
# Above this number of callers in one process, the window that was used least recently is dropped.
MAX_CALLERS = 10_000
# Encoding a command takes as long as reading its reply, and callers come again.
MAX_CACHED_COMMANDS = 4096

_HIT = Script("""
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {count, left}
""")

# Counts under KEYS[2] if the value at KEYS[1] begins with ARGV[1], and under KEYS[3] if it does
# not. Counts nothing if the value is missing or begins with ARGV[2].
_HIT_ONE_OF = Script("""
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 1, #ARGV[2]) == ARGV[2] then return {0, 0, 0} end
local chosen = 3
if string.sub(value, 1, #ARGV[1]) == ARGV[1] then chosen = 2 end
local count = redis.call('INCRBY', KEYS[chosen], 1)
local left = redis.call('PTTL', KEYS[chosen])
if left < 0 then
  redis.call('PEXPIRE', KEYS[chosen], ARGV[3])
  left = tonumber(ARGV[3])
end
return {count, left, chosen - 1}
""")


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


@dataclass(frozen=True, slots=True)
class Condition:
    """Chooses one of two counters by the beginning of the value at a key of Redis.

    `met` chooses the first and `undecided` none; anything else chooses the second.
    """

    key: str
    met: str
    undecided: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The hit and the key under which it was counted; both None if Redis could not decide.

    `reply` is the reply of Redis to the lookup; None if Redis is unavailable.
    """

    hit: Hit | None = None
    key: str | None = None
    reply: object = None


class RateCounter(Protocol):
    """Counts requests by key."""

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request in a window of so many seconds."""
        ...

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Execute `after`, then count a request under the key that the condition chooses.

        Both are one round trip. While Redis is unavailable, or if the condition is undecided,
        nothing is counted.
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

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Count nothing: without Redis the condition is undecided."""
        return Decision()

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


class RedisRateCounter:
    """Counts in Redis, and in this process while Redis is unavailable."""

    def __init__(self, store: Redis, clock: Clock) -> None:
        self._store = store
        self._fallback = MemoryRateCounter(clock)

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request."""
        replies = self._store.execute(_hit_of(key, cost, seconds))
        if replies is None:
            return self._fallback.hit(key, seconds=seconds, cost=cost)
        count, milliseconds = replies[0]
        return Hit(count, milliseconds / 1000)

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Execute `after`, then count a request under the key that the condition chooses."""
        replies = self._store.execute(after, _hit_one_of(keys, condition, seconds))
        if replies is None:
            return Decision()
        reply, (count, milliseconds, chosen) = replies
        if not chosen:
            return Decision(reply=reply)
        return Decision(Hit(count, milliseconds / 1000), keys[chosen - 1], reply)

    def count(self, key: str) -> int:
        """Return the number of requests in the current window."""
        replies: list[Any] | None = self._store.execute(command("GET", _redis_key(key)))
        return self._fallback.count(key) if replies is None else int(replies[0] or 0)

    def reset(self, key: str) -> None:
        """Begin a new window with the next request."""
        self._fallback.reset(key)
        self._store.execute(command("DEL", _redis_key(key)))


@lru_cache(maxsize=MAX_CACHED_COMMANDS)
def _hit_of(key: str, cost: int, seconds: int) -> Command:
    return _HIT.on(_redis_key(key), arguments=(cost, seconds * 1000))


@lru_cache(maxsize=MAX_CACHED_COMMANDS)
def _hit_one_of(keys: tuple[str, str], condition: Condition, seconds: int) -> Command:
    return _HIT_ONE_OF.on(
        condition.key,
        *map(_redis_key, keys),
        arguments=(condition.met, condition.undecided, seconds * 1000),
    )


def _redis_key(key: str) -> str:
    return f"userapi:rate:{key}"
