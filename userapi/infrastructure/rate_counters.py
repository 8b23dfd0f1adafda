"""Counting requests: how many a caller has made in the present window of a rate limit.

In Redis for all processes at once; in the memory of this process where there is no Redis, and while
it is away. A window begins with its first request and is counted in one piece, so that many at once
never get more than one after the other would.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

from userapi.clock import Clock
from userapi.infrastructure.redis_client import Command, Redis, Script, command

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
# Above so many callers in one process those whose window is over are forgotten.
COUNTED_IN_MEMORY = 10_000
# To put a command together takes as long as to read its answer: callers come again.
REMEMBERED_COMMANDS = 4096

_HIT = Script("""
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {count, left}
""")

# Counts under KEYS[2] where the value at KEYS[1] begins with ARGV[1], and under KEYS[3] where it
# does not. Counts nothing where the value is missing or begins with ARGV[2].
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
    """So many requests in a window of so many seconds."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rate that a setting such as "20/minute" stands for."""
        amount, _, unit = text.partition("/")
        return cls(int(amount), _SECONDS[unit])


@dataclass(frozen=True, slots=True)
class Hit:
    """What a request has been counted as: the how-manieth, and when its window ends."""

    count: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Condition:
    """Decides between two counters by how the value at a key of Redis begins.

    `met` chooses the first, and `undecided` neither; anything else chooses the second.
    """

    key: str
    met: str
    undecided: str


@dataclass(frozen=True, slots=True)
class Decided:
    """The hit and the key it was counted under; both None where Redis could not decide.

    `answer` is what Redis said to the question that was asked along; None if it was not asked.
    """

    hit: Hit | None = None
    key: str | None = None
    answer: object = None


class RateCounter(Protocol):
    """Counts requests by key."""

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request in a window of so many seconds."""
        ...

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decided:
        """Ask Redis `after`, then count a request under the key that the condition chooses.

        Both are one round trip. Where Redis is away or the condition undecided, nothing is counted.
        """
        ...

    def count(self, key: str) -> int:
        """Return how many requests the present window has seen."""
        ...

    def forget(self, key: str) -> None:
        """Begin a new window with the next request."""
        ...


class MemoryRateCounter:
    """Counts in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[int, float]] = {}

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decided:
        """Count nothing: without Redis the condition is undecided."""
        return Decided()

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request."""
        now = self._clock.now().timestamp()
        with self._lock:
            count, ends_at = self._windows.get(key, (0, 0.0))
            if ends_at <= now:
                count, ends_at = 0, now + seconds
                if len(self._windows) >= COUNTED_IN_MEMORY:
                    self._forget_ended(now)
            count += cost
            self._windows[key] = (count, ends_at)
        return Hit(count, ends_at - now)

    def count(self, key: str) -> int:
        """Return how many requests the present window has seen."""
        with self._lock:
            count, ends_at = self._windows.get(key, (0, 0.0))
        return count if ends_at > self._clock.now().timestamp() else 0

    def forget(self, key: str) -> None:
        """Begin a new window with the next request."""
        with self._lock:
            self._windows.pop(key, None)

    def _forget_ended(self, now: float) -> None:
        """Make room: drop windows that are over and, where all go on, those that began first."""
        live = {key: window for key, window in self._windows.items() if window[1] > now}
        for key in list(live)[: len(live) - COUNTED_IN_MEMORY // 2]:
            del live[key]
        self._windows = live


class RedisRateCounter:
    """Counts in Redis, and in this process while Redis is away."""

    def __init__(self, store: Redis, clock: Clock) -> None:
        self._store = store
        self._meanwhile = MemoryRateCounter(clock)

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request."""
        answers = self._store.ask(_hit_of(key, cost, seconds))
        if answers is None:
            return self._meanwhile.hit(key, seconds=seconds, cost=cost)
        count, milliseconds = answers[0]
        return Hit(count, milliseconds / 1000)

    def hit_one_of(
        self, keys: tuple[str, str], *, seconds: int, condition: Condition, after: Command
    ) -> Decided:
        """Ask, and count a request under the key that the condition chooses, in one round trip."""
        answers = self._store.ask(after, _hit_one_of(keys, condition, seconds))
        if answers is None:
            return Decided()
        answer, (count, milliseconds, chosen) = answers
        if not chosen:
            return Decided(answer=answer)
        return Decided(Hit(count, milliseconds / 1000), keys[chosen - 1], answer)

    def count(self, key: str) -> int:
        """Return how many requests the present window has seen."""
        answers: list[Any] | None = self._store.ask(command("GET", _redis_key(key)))
        return self._meanwhile.count(key) if answers is None else int(answers[0] or 0)

    def forget(self, key: str) -> None:
        """Begin a new window with the next request."""
        self._meanwhile.forget(key)
        self._store.ask(command("DEL", _redis_key(key)))


@lru_cache(maxsize=REMEMBERED_COMMANDS)
def _hit_of(key: str, cost: int, seconds: int) -> Command:
    return _HIT.on(_redis_key(key), given=(cost, seconds * 1000))


@lru_cache(maxsize=REMEMBERED_COMMANDS)
def _hit_one_of(keys: tuple[str, str], condition: Condition, seconds: int) -> Command:
    return _HIT_ONE_OF.on(
        condition.key,
        *map(_redis_key, keys),
        given=(condition.met, condition.undecided, seconds * 1000),
    )


def _redis_key(key: str) -> str:
    return f"userapi:rate:{key}"
