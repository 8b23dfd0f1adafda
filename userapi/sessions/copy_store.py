"""Copies in Redis of what requests read, which cannot outlive a change in the database.

A request costs one round trip, including its rate limit: one script returns the copy if its
versions are current. Otherwise it stores a placeholder, and the process reads the database and
stores the result by a second script, which stores nothing unless

- the placeholder of this process is still there: a revocation overwrites it with a tombstone, and
  an emptied Redis has lost it, so the fill is rejected; and
- the result is not older than the versions stored for the user and for the catalogue of roles.

A copy is valid only while those versions exist, so a Redis that lost some of its keys leads to a
read of the database. Tombstones outlive every placeholder. It is also valid only on the server
process that stored it: a replica that was promoted may have the copy and have lost its tombstone.

A revocation applies to the next request in every process. If Redis is unavailable when a process
revokes, this process reads the database until a thread has published the invalidation, which it
tries several times a second. A process that reconnects to Redis reads the database for a moment
longer, so that it trusts no copy before the others have published their invalidations. Copies that
other processes use stay valid only if a single process cannot reach Redis, or stops between its
commit and the invalidation. Even then a copy expires `copy_seconds` after its placeholder was
stored, which was before the database was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from userapi.infrastructure.key_tags import TAGS, tag_of_user
from userapi.infrastructure.rate_counters import Condition
from userapi.infrastructure.redis_commands import (
    SERVER_ID,
    Command,
    RedisClient,
    Script,
    command,
)
from userapi.sessions import previous_keys
from userapi.sessions.invalidations import Invalidations

# Time for all processes to publish their pending invalidations.
RECONNECT_GRACE_SECONDS = 1.5
INVALIDATIONS_OUTLIVE_COPIES_SECONDS = 60
MAX_CACHED_COMMANDS = 4096
ENDED = b"E"

# The key of a copy holds "D<its version> <owner's version> <catalogue's version> <server's id>
# <text>"; or "P<server's id>:<time>", the
# placeholder of a fill; or "E", the tombstone of what has ended. KEYS[4] to KEYS[6], if
# given, are the same keys of the previous release.
_LOOKUP = Script("""
local found = redis.call('MGET', unpack(KEYS))
if found[4] == 'E' and found[1] ~= 'E' then
  redis.call('SET', KEYS[1], 'E', 'PX', math.max(redis.call('PTTL', KEYS[4]), 1))
  return found[4]
end
if found[1] then
  local kind = string.sub(found[1], 1, 1)
  if kind == 'E' then return found[1] end
  if kind == 'P' and string.sub(found[1], 2, 9) == ARGV[3] then return found[1] end
  local session, user, roles, server = string.match(found[1], '^D(%d+) (%d+) (%d+) (%w+) ')
  if server == ARGV[3] and user == found[2] and roles == found[3]
      and tonumber(session) >= tonumber(ARGV[1])
      and tonumber(found[5] or 0) <= tonumber(user)
      and tonumber(found[6] or 0) <= tonumber(roles) then
    return found[1]
  end
end
local now = redis.call('TIME')
local placeholder = 'P' .. ARGV[3] .. ':' .. now[1] .. '.' .. now[2]
redis.call('SET', KEYS[1], placeholder, 'PX', ARGV[2])
return {placeholder}
""")
_FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if string.sub(ARGV[1], 2, 9) ~= ARGV[6] then return 0 end
local life = redis.call('PTTL', KEYS[1])
for index = 2, 3 do
  local known = redis.call('GET', KEYS[index])
  if known and tonumber(known) > tonumber(ARGV[index + 1]) then
    redis.call('DEL', KEYS[1])
    return 0
  end
end
for index = 2, 3 do redis.call('SET', KEYS[index], ARGV[index + 1], 'PX', ARGV[5]) end
local versions, text = string.match(ARGV[2], '^(D%d+ %d+ %d+ )(.*)$')
redis.call('SET', KEYS[1], versions .. ARGV[6] .. ' ' .. text, 'PX', math.max(life, 1))
return 1
""")
_FILL_WITH_ENDED = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'E', 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
return 1
""")
_DROP_OLDER = Script("""
local present = redis.call('GET', KEYS[1])
if not present or present == 'E' then return 0 end
local version = string.match(present, '^D(%d+) ')
if version and tonumber(version) >= tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
""")
_RAISE_VERSION = Script("""
local known = redis.call('GET', KEYS[1])
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a copy is: the kind of what is copied, its name, and the owner whose version counts.

    All its keys have the tag of the owner, so that one script can use them in a Redis Cluster.
    """

    kind: str
    name: str
    owner_id: UUID

    @property
    def key(self) -> str:
        """Return the key of the copy, its placeholder or its tombstone."""
        return f"userapi:live:{tag_of_user(self.owner_id)}:{self.kind}:{self.name}"

    @property
    def previous_key(self) -> str:
        """Return the key that the copy had in the previous release."""
        return f"userapi:live:{self.kind}:{self.name}"

    def keys(self, *, with_previous: bool) -> tuple[str, ...]:
        """Return the keys that decide whether the copy is valid."""
        names = self.key, owner_key(self.owner_id), catalogue_key(tag_of_user(self.owner_id))
        if not with_previous:
            return names
        previous = self.previous_key, previous_keys.user_key(self.owner_id)
        return *names, *previous, previous_keys.CATALOGUE


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a copy: of the row, of its owner, and of the catalogue of roles."""

    own: int
    owner: int
    catalogue: int


class CopyStore:
    """Looks copies up, fills and invalidates them. One instance for each process."""

    def __init__(
        self,
        *,
        copy_seconds: int,
        lookups: RedisClient,
        invalidations: RedisClient,
        shared_with_previous_release: bool = True,
    ) -> None:
        """`invalidations` has a longer time-out than `lookups`, and its own circuit breaker."""
        self._lookups = lookups
        self.invalidations = Invalidations(invalidations, copy_seconds=copy_seconds)
        self._copy_milliseconds = copy_seconds * 1000
        self._invalidation_milliseconds = (
            self._copy_milliseconds + INVALIDATIONS_OUTLIVE_COPIES_SECONDS * 1000
        )
        self._is_shared = shared_with_previous_release

    def lookup(self, place: Place, *, version: int) -> Command | None:
        """Return the command whose reply `read` accepts; None while Redis is not trusted.

        A copy of an earlier version of the row is replaced by a placeholder.
        """
        if self.invalidations.are_pending(place.owner_id) or self._has_reconnected(place):
            return None
        return _lookup(place, version, self._copy_milliseconds, self._is_shared)

    def read(self, place: Place, *, version: int, reply: object = None) -> object:
        """Return the reply to `lookup`, which is executed if the caller has not done so.

        It is bytes that begin with D or E; a list with the placeholder that this process must fill;
        or anything else for a miss.
        """
        if reply is None:
            lookup = self.lookup(place, version=version)
            replies = self._lookups.execute(lookup) if lookup else None
            reply = replies[0] if replies else None
        if not isinstance(reply, list) and self._has_reconnected(place):
            return None
        return reply

    def fill(self, place: Place, reply: object, versions: Versions, text: bytes) -> None:
        """Store a copy if the reply is the placeholder of this process."""
        if isinstance(reply, list):
            copy = b"D%d %d %d %b" % (versions.own, versions.owner, versions.catalogue, text)
            arguments = (
                reply[0],
                copy,
                versions.owner,
                versions.catalogue,
                self._invalidation_milliseconds,
                SERVER_ID,
            )
            names = place.keys(with_previous=False)
            self._lookups.execute(_FILL.on(*names, arguments=arguments))

    def fill_with_ended(self, place: Place, reply: object) -> None:
        """Store that there is nothing to copy, if the reply is the placeholder of this process."""
        if isinstance(reply, list):
            self._lookups.execute(_FILL_WITH_ENDED.on(place.key, arguments=(reply[0],)))

    def ended(self, places: Sequence[Place]) -> None:
        """Invalidate copies of what has ended permanently: many in one round trip."""
        tombstones: dict[str, list[Command]] = {}
        for place in places:
            names = [place.key]
            if self._is_shared:
                names.append(place.previous_key)
            tombstones.setdefault(tag_of_user(place.owner_id), []).extend(
                command("SET", name, ENDED, "PX", self._invalidation_milliseconds) for name in names
            )
        self.invalidations.publish(tombstones)

    def changed(self, place: Place, *, version: int) -> None:
        """Invalidate a copy of an earlier version."""
        names = [place.key]
        if self._is_shared:
            names.append(place.previous_key)
        drops = [_DROP_OLDER.on(name, arguments=(version,)) for name in names]
        self.invalidations.publish({tag_of_user(place.owner_id): drops})

    def owner_changed(self, owner_id: UUID, *, version: int) -> None:
        """Invalidate all copies of an owner."""
        names = [owner_key(owner_id)]
        if self._is_shared:
            names.append(previous_keys.user_key(owner_id))
        self.invalidations.publish({tag_of_user(owner_id): self._raises(names, version)})

    def catalogue_changed(self, *, version: int) -> None:
        """Invalidate all copies: one round trip for each server of a Cluster."""
        raises = {tag: self._raises([catalogue_key(tag)], version) for tag in TAGS}
        if self._is_shared:
            raises[TAGS[0]] += self._raises([previous_keys.CATALOGUE], version)
        self.invalidations.publish(raises)

    def _raises(self, names: Sequence[str], version: int) -> list[Command]:
        arguments = (version, self._invalidation_milliseconds)
        return [_RAISE_VERSION.on(name, arguments=arguments) for name in names]

    def _has_reconnected(self, place: Place) -> bool:
        return self._lookups.reconnected_within(
            RECONNECT_GRACE_SECONDS, tag_of_user(place.owner_id)
        )


@lru_cache(maxsize=MAX_CACHED_COMMANDS)
def liveness(place: Place, *, version: int | None = None) -> Condition:
    """Return what Redis holds, after the lookup, for a copy of this version; None: of any.

    The lookup has replaced a copy whose other versions are outdated.
    """
    met = "D" if version is None else f"D{version} "
    return Condition(place.key, met=met, undecided="P")


def owner_key(owner_id: UUID) -> str:
    """Return the key of the version of an owner."""
    return f"userapi:live:{tag_of_user(owner_id)}:u:{owner_id.hex}"


def catalogue_key(tag: str) -> str:
    """Return the key of the version of the role catalogue for the owners of this tag."""
    return f"userapi:live:{tag}:roles"


@lru_cache(maxsize=MAX_CACHED_COMMANDS)
def _lookup(place: Place, version: int, milliseconds: int, is_shared: bool) -> Command:
    names = place.keys(with_previous=is_shared)
    return _LOOKUP.on(*names, arguments=(version, milliseconds, SERVER_ID))
