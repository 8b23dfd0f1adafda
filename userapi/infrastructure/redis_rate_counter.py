"""Counting requests in Redis, for all processes."""

from functools import lru_cache
from typing import Any
from uuid import UUID

from userapi.clock import Clock
from userapi.infrastructure.key_tags import tag_of_text, tag_of_user
from userapi.infrastructure.rate_counters import (
    Condition,
    Decision,
    Hit,
    MemoryRateCounter,
    key_of_user,
    user_of_key,
)
from userapi.infrastructure.redis_commands import Command, RedisClient, Script, command

# Encoding a command takes as long as reading its reply, and most callers send more requests.
MAX_CACHED_COMMANDS = 4096

# The scripts return one text: redis-py needs several microseconds for each number of a list.
_HIT = Script("""
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return count .. ' ' .. left
""")

# Counts if the value at KEYS[1] begins with ARGV[1]; the third value of the reply is then 1. It is
# 0 if the value is missing or begins with ARGV[2], and 2 for any other value.
_HIT_IF = Script("""
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 1, #ARGV[2]) == ARGV[2] then return '0 0 0' end
if string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then return '0 0 2' end
local count = redis.call('INCRBY', KEYS[2], 1)
local left = redis.call('PTTL', KEYS[2])
if left < 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  left = tonumber(ARGV[3])
end
return count .. ' ' .. left .. ' 1'
""")
_IS_MET = 1
_IS_NOT_MET = 2


class RedisRateCounter:
    """Counts in Redis, and in this process while Redis is unavailable."""

    def __init__(self, store: RedisClient, clock: Clock) -> None:
        self._store = store
        self._fallback = MemoryRateCounter(clock)

    def hit(self, key: str, *, seconds: int, cost: int = 1) -> Hit:
        """Count a request."""
        replies = self._store.execute(_hit_of(key, cost, seconds))
        if replies is None:
            return self._fallback.hit(key, seconds=seconds, cost=cost)
        count, milliseconds = map(int, replies[0].split())
        return Hit(count, milliseconds / 1000)

    def hit_if(
        self, user_id: UUID, *, seconds: int, condition: Condition, after: Command
    ) -> Decision:
        """Execute `after`, then count a request of a user if the condition is met."""
        replies = self._store.execute(after, _hit_if(user_id, condition, seconds))
        if replies is None:
            return Decision()
        reply, counted = replies
        count, milliseconds, decision = map(int, counted.split())
        if decision == _IS_MET:
            return Decision(Hit(count, milliseconds / 1000), is_met=True, reply=reply)
        return Decision(is_met=False if decision == _IS_NOT_MET else None, reply=reply)

    def hit_of(
        self, owner_id: UUID, key: str, *, seconds: int, after: Command | None
    ) -> tuple[Hit, object]:
        """Execute `after`, then count a request by a key of an owner."""
        count = _hit_of_owner(owner_id, key, seconds)
        replies = self._store.execute(count) if after is None else self._store.execute(after, count)
        if replies is None:
            return self._fallback.hit_of(owner_id, key, seconds=seconds, after=None)
        number, milliseconds = map(int, replies[-1].split())
        return Hit(number, milliseconds / 1000), None if after is None else replies[0]

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
def _hit_of_owner(owner_id: UUID, key: str, seconds: int) -> Command:
    name = f"userapi:rate:{tag_of_user(owner_id)}:{key}"
    return _HIT.on(name, arguments=(1, seconds * 1000))


@lru_cache(maxsize=MAX_CACHED_COMMANDS)
def _hit_if(user_id: UUID, condition: Condition, seconds: int) -> Command:
    return _HIT_IF.on(
        condition.key,
        _redis_key(key_of_user(user_id)),
        arguments=(condition.met, condition.undecided, seconds * 1000),
    )


def _redis_key(key: str) -> str:
    """Return the name of a counter. That of a user has the tag of the user's sessions."""
    user_id = user_of_key(key)
    tag = tag_of_text(key) if user_id is None else tag_of_user(user_id)
    return f"userapi:rate:{tag}:{key}"
