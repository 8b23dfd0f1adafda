"""Live sessions with copies in Redis that cannot outlive a revocation.

A request costs one round trip, including its rate limit: one script returns the copy if its
versions are current. Otherwise it stores a placeholder, and the process reads the database and
stores the result by a second script, which stores nothing unless

- the placeholder of this process is still there: a revocation overwrites it with a tombstone, and
  an emptied Redis has lost it, so a fill that was overtaken by either is rejected; and
- the result is not older than the versions stored for the user and for the catalogue of roles.

A copy is valid only while those versions exist, so a Redis that lost some of its keys leads to a
read of the database. Tombstones outlive every placeholder. It is also valid only on the server
process that stored it: a replica that was promoted may have the copy and have lost its tombstone.

A revocation applies to the next request in every process. If Redis is unavailable when a process
revokes, this process reads the database until a thread has published the invalidation, which it
tries several times a second. A process that reconnects to Redis reads the database for a moment
longer, so that it trusts no copy before the others have published their invalidations. Only if one
process alone cannot reach Redis, or dies between its commit and the invalidation, do the copies
that others use stay valid: a copy lives `session_cache_seconds` (10) from the moment when its
placeholder was stored, before the database was read, and that is the limit.
"""

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

from userapi.clock import Clock
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
from userapi.sessions.copies import (
    MAX_CACHED_COPIES,
    catalogue_key,
    decoded,
    encoded,
    in_doubt_key,
    keys,
    session_key,
    user_key,
)
from userapi.sessions.invalidations import Invalidations
from userapi.sessions.status import IN_DOUBT_SECONDS, LiveSession, LiveSessions, SessionOfUser

# Time for all processes to publish their pending invalidations.
RECONNECT_GRACE_SECONDS = 1.5
INVALIDATIONS_OUTLIVE_COPIES_SECONDS = 60
ENDED = b"E"

# The key of a session holds "D<its version> <user's version> <catalogue's version> <server's id>
# <JSON>", a copy with the user's profile on the next line; or "P<server's id>:<time>", the
# placeholder of a fill; or "E", the tombstone of a session that has ended. KEYS[4] to KEYS[6], if
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


class RedisLiveSessions:
    """Reads Redis first, and the database on a miss or while Redis is unavailable."""

    def __init__(
        self,
        clock: Clock,
        *,
        copy_seconds: int,
        lookups: RedisClient,
        invalidations: RedisClient,
        database: LiveSessions,
        shared_with_previous_release: bool = True,
    ) -> None:
        """`invalidations` has a longer time-out than `lookups`, and its own circuit breaker."""
        self._clock = clock
        self._lookups = lookups
        self._notes = invalidations
        self._invalidations = Invalidations(invalidations, copy_seconds=copy_seconds)
        self._database = database
        self._copy_milliseconds = copy_seconds * 1000
        self._invalidation_milliseconds = (
            self._copy_milliseconds + INVALIDATIONS_OUTLIVE_COPIES_SECONDS * 1000
        )
        self._is_shared = shared_with_previous_release

    def lookup(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return the command whose reply `find` accepts; None while Redis is not trusted."""
        if self._invalidations.are_pending(user_id) or self._has_reconnected(user_id):
            return None
        return _lookup(
            session_id, user_id, session_version, self._copy_milliseconds, self._is_shared
        )

    def liveness(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Condition:
        """Return what Redis holds for a live session: a copy of this version, no placeholder.

        The lookup has replaced a copy whose other versions are outdated.
        """
        return _liveness(session_id, user_id, session_version)

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session, or None if it has ended or never existed."""
        if reply is None:
            reply = self._look_up(session_id, user_id, session_version)
        if not isinstance(reply, list) and self._has_reconnected(user_id):
            reply = None
        if reply == ENDED:
            return None
        if isinstance(reply, bytes) and reply.startswith(b"D"):
            live = decoded(reply)
            if live is not None and live.ends_at > self._clock.now():
                return live
        found = self._database.find(session_id, user_id=user_id, session_version=session_version)
        if isinstance(reply, list):
            self._fill(session_id, user_id, reply[0], found)
        return found

    def _has_reconnected(self, user_id: UUID) -> bool:
        return self._lookups.reconnected_within(RECONNECT_GRACE_SECONDS, tag_of_user(user_id))

    def _look_up(self, session_id: UUID, user_id: UUID, session_version: int) -> object:
        lookup = self.lookup(session_id, user_id=user_id, session_version=session_version)
        replies = self._lookups.execute(lookup) if lookup else None
        return replies[0] if replies else None

    def _fill(
        self, session_id: UUID, user_id: UUID, placeholder: bytes, live: LiveSession | None
    ) -> None:
        names = keys(session_id, user_id)
        if live is None:
            self._lookups.execute(_FILL_WITH_ENDED.on(names[0], arguments=(placeholder,)))
        elif live.user_id == user_id:
            versions = (live.access_version, live.catalogue_version)
            arguments = (
                placeholder,
                encoded(live),
                *versions,
                self._invalidation_milliseconds,
                SERVER_ID,
            )
            self._lookups.execute(_FILL.on(*names, arguments=arguments))

    def session_changed(self, session_id: UUID, *, user_id: UUID, version: int) -> None:
        """Invalidate the copy of a session with a new version."""
        names = [session_key(session_id, user_id)]
        if self._is_shared:
            names.append(previous_keys.session_key(session_id))
        drops = [_DROP_OLDER.on(name, arguments=(version,)) for name in names]
        self._invalidations.publish({tag_of_user(user_id): drops})

    def sessions_ended(self, sessions: Sequence[SessionOfUser]) -> None:
        """Invalidate the copies of sessions that have ended: many in one round trip."""
        tombstones: dict[str, list[Command]] = {}
        for session_id, user_id in sessions:
            names = [session_key(session_id, user_id)]
            if self._is_shared:
                names.append(previous_keys.session_key(session_id))
            tombstones.setdefault(tag_of_user(user_id), []).extend(
                command("SET", name, ENDED, "PX", self._invalidation_milliseconds) for name in names
            )
        self._invalidations.publish(tombstones)

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Invalidate the copies of a user's sessions."""
        names = [user_key(user_id)]
        if self._is_shared:
            names.append(previous_keys.user_key(user_id))
        self._invalidations.publish({tag_of_user(user_id): self._raises(names, access_version)})

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Invalidate the copies of all sessions: one round trip for each server of a Cluster."""
        raises = {tag: self._raises([catalogue_key(tag)], catalogue_version) for tag in TAGS}
        if self._is_shared:
            raises[TAGS[0]] += self._raises([previous_keys.CATALOGUE], catalogue_version)
        self._invalidations.publish(raises)

    def _raises(self, names: Sequence[str], version: int) -> list[Command]:
        arguments = (version, self._invalidation_milliseconds)
        return [_RAISE_VERSION.on(name, arguments=arguments) for name in names]

    def rotation_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> None:
        """Keep this in the memory of the process and, as soon as it is available, in Redis."""
        self._database.rotation_in_doubt(session_id, user_id=user_id, generation=generation)
        key = in_doubt_key(session_id, user_id)
        note = command("SET", key, generation, "EX", IN_DOUBT_SECONDS)
        self._invalidations.publish({tag_of_user(user_id): [note]}, needed_seconds=IN_DOUBT_SECONDS)

    def is_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> bool:
        """Return whether any process reported it; this process only, while Redis is away."""
        if self._database.is_in_doubt(session_id, user_id=user_id, generation=generation):
            return True
        replies = self._notes.execute(command("GET", in_doubt_key(session_id, user_id)))
        return replies == [str(generation).encode()]


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _lookup(
    session_id: UUID, user_id: UUID, session_version: int, milliseconds: int, is_shared: bool
) -> Command:
    names = keys(session_id, user_id)
    if is_shared:
        names += previous_keys.keys(session_id, user_id)
    return _LOOKUP.on(*names, arguments=(session_version, milliseconds, SERVER_ID))


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _liveness(session_id: UUID, user_id: UUID, session_version: int) -> Condition:
    return Condition(session_key(session_id, user_id), met=f"D{session_version} ", undecided="P")
