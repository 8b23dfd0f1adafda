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

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import structlog

from userapi.clock import Clock
from userapi.infrastructure.rate_counters import Condition
from userapi.infrastructure.redis_client import SERVER_ID, Command, Redis, Script, command
from userapi.sessions.authentication_level import Authentication
from userapi.sessions.status import IN_DOUBT_SECONDS, LiveSession, LiveSessions, Profile

log = structlog.get_logger(__name__)

# A lost invalidation breaks a guarantee, and a lost lookup costs a query: invalidations wait
# longer than lookups, which every request makes.
INVALIDATION_TIMEOUT_SECONDS = 0.5
INVALIDATIONS_AT_ONCE = 500
INVALIDATION_BREAKER_SECONDS = 0.1
# Time for all processes to publish their pending invalidations.
RECONNECT_GRACE_SECONDS = 1.5
INVALIDATIONS_OUTLIVE_COPIES_SECONDS = 60
MAX_CACHED_COPIES = 4096
CATALOGUE = "userapi:live:roles"
ENDED = b"E"

# The key of a session holds "D<its version> <user's version> <catalogue's version> <server's id>
# <JSON>", a copy with the user's profile on the next line; or "P<server's id>:<time>", the
# placeholder of a fill; or "E", the tombstone of a session that has ended. Release 1.0 wrote copies
# without the server's id, as "C…". Either release reads the copies of the other as a miss.
_LOOKUP = Script("""
local found = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
if found[1] then
  local kind = string.sub(found[1], 1, 1)
  if kind == 'E' then return found[1] end
  if kind == 'P' and string.sub(found[1], 2, 9) == ARGV[3] then return found[1] end
  local session, user, roles, server = string.match(found[1], '^D(%d+) (%d+) (%d+) (%w+) ')
  if server == ARGV[3] and user == found[2] and roles == found[3]
      and tonumber(session) >= tonumber(ARGV[1]) then
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
        lookups: Redis,
        invalidations: Redis,
        database: LiveSessions,
    ) -> None:
        """`invalidations` has a longer time-out than `lookups`, and its own circuit breaker."""
        self._clock = clock
        self._lookups = lookups
        self._invalidations = invalidations
        self._database = database
        self._copy_seconds = copy_seconds
        self._copy_milliseconds = copy_seconds * 1000
        self._invalidation_milliseconds = (
            self._copy_milliseconds + INVALIDATIONS_OUTLIVE_COPIES_SECONDS * 1000
        )
        # Unpublished invalidations, each with the time when the last copy it concerns expires.
        self._pending: dict[Command, float] = {}
        self._lock = threading.Lock()
        self._publisher: threading.Thread | None = None

    def lookup(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return the command whose reply `find` accepts; None while Redis is not trusted."""
        if self._pending or self._lookups.reconnected_within(RECONNECT_GRACE_SECONDS):
            return None
        return _lookup(session_id, user_id, session_version, self._copy_milliseconds)

    def liveness(self, session_id: UUID, *, session_version: int) -> Condition:
        """Return what Redis holds for a live session: a copy of this version, no placeholder.

        The lookup has replaced a copy whose other versions are outdated.
        """
        return Condition(_session_key(session_id), met=f"D{session_version} ", undecided="P")

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session, or None if it has ended or never existed."""
        if reply is None:
            reply = self._look_up(session_id, user_id, session_version)
        if not isinstance(reply, list) and self._lookups.reconnected_within(
            RECONNECT_GRACE_SECONDS
        ):
            reply = None
        if reply == ENDED:
            return None
        if isinstance(reply, bytes) and reply.startswith(b"D"):
            live = _decoded(reply)
            if live is not None and live.ends_at > self._clock.now():
                return live
        found = self._database.find(session_id, user_id=user_id, session_version=session_version)
        if isinstance(reply, list):
            self._fill(session_id, user_id, reply[0], found)
        return found

    def _look_up(self, session_id: UUID, user_id: UUID, session_version: int) -> object:
        lookup = self.lookup(session_id, user_id=user_id, session_version=session_version)
        replies = self._lookups.execute(lookup) if lookup else None
        return replies[0] if replies else None

    def _fill(
        self, session_id: UUID, user_id: UUID, placeholder: bytes, live: LiveSession | None
    ) -> None:
        keys = _keys(session_id, user_id)
        if live is None:
            self._lookups.execute(_FILL_WITH_ENDED.on(keys[0], arguments=(placeholder,)))
        elif live.user_id == user_id:
            versions = (live.access_version, live.catalogue_version)
            arguments = (
                placeholder,
                _encoded(live),
                *versions,
                self._invalidation_milliseconds,
                SERVER_ID,
            )
            self._lookups.execute(_FILL.on(*keys, arguments=arguments))

    def session_changed(self, session_id: UUID, *, version: int, live: bool) -> None:
        """Invalidate the copy of a session with a new version, or one that has ended."""
        key = _session_key(session_id)
        if live:
            self._publish(_DROP_OLDER.on(key, arguments=(version,)))
        else:
            self._publish(command("SET", key, ENDED, "PX", self._invalidation_milliseconds))

    def sessions_ended(self, session_ids: Sequence[UUID]) -> None:
        """Invalidate the copies of sessions that have ended: many in one round trip."""
        ended = [
            command("SET", _session_key(session_id), ENDED, "PX", self._invalidation_milliseconds)
            for session_id in session_ids
        ]
        for start in range(0, len(ended), INVALIDATIONS_AT_ONCE):
            self._publish(*ended[start : start + INVALIDATIONS_AT_ONCE])

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Invalidate the copies of a user's sessions."""
        arguments = (access_version, self._invalidation_milliseconds)
        self._publish(_RAISE_VERSION.on(_user_key(user_id), arguments=arguments))

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Invalidate the copies of all sessions."""
        arguments = (catalogue_version, self._invalidation_milliseconds)
        self._publish(_RAISE_VERSION.on(CATALOGUE, arguments=arguments))

    def rotation_in_doubt(self, session_id: UUID, *, generation: int) -> None:
        """Keep this in the memory of the process and, as soon as it is available, in Redis."""
        self._database.rotation_in_doubt(session_id, generation=generation)
        self._publish(
            command("SET", _in_doubt_key(session_id), generation, "EX", IN_DOUBT_SECONDS),
            needed_seconds=IN_DOUBT_SECONDS,
        )

    def is_in_doubt(self, session_id: UUID, *, generation: int) -> bool:
        """Return whether any process reported it; this process only, while Redis is away."""
        if self._database.is_in_doubt(session_id, generation=generation):
            return True
        replies = self._invalidations.execute(command("GET", _in_doubt_key(session_id)))
        return replies == [str(generation).encode()]

    def _publish(self, *invalidations: Command, needed_seconds: float | None = None) -> None:
        # While some are pending, no request tries itself: each would wait for a time-out.
        if self._publisher is None and self._invalidations.execute(*invalidations) is not None:
            return
        with self._lock:
            until = time.monotonic() + (needed_seconds or self._copy_seconds)
            self._pending.update(dict.fromkeys(invalidations, until))
            if self._publisher is None:
                self._publisher = threading.Thread(
                    target=self._retry_pending, name="session-invalidations", daemon=True
                )
                self._publisher.start()
        log.warning(
            "sessions.invalidation_pending", applies_elsewhere_within_seconds=self._copy_seconds
        )

    def _retry_pending(self) -> None:
        """Publish the pending invalidations, until all are published or no longer needed."""
        while True:
            self._publish_pending()
            with self._lock:
                if not self._pending:
                    self._publisher = None
                    return
            time.sleep(INVALIDATION_BREAKER_SECONDS)

    def _publish_pending(self) -> None:
        now = time.monotonic()
        with self._lock:
            needed = [each for each, until in self._pending.items() if until > now]
        published = needed if needed and self._invalidations.execute(*needed) is not None else []
        with self._lock:
            self._pending = {
                each: until
                for each, until in self._pending.items()
                if until > now and each not in published
            }


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _lookup(session_id: UUID, user_id: UUID, session_version: int, milliseconds: int) -> Command:
    return _LOOKUP.on(
        *_keys(session_id, user_id), arguments=(session_version, milliseconds, SERVER_ID)
    )


def _keys(session_id: UUID, user_id: UUID) -> tuple[str, str, str]:
    return _session_key(session_id), _user_key(user_id), CATALOGUE


def _session_key(session_id: UUID) -> str:
    return f"userapi:live:s:{session_id.hex}"


def _in_doubt_key(session_id: UUID) -> str:
    return f"userapi:live:d:{session_id.hex}"


def _user_key(user_id: UUID) -> str:
    return f"userapi:live:u:{user_id.hex}"


def _encoded(live: LiveSession) -> bytes:
    profile = live.profile
    text = orjson.dumps(
        [
            live.session_id.hex,
            live.user_id.hex,
            live.username,
            live.roles,
            live.must_change_password,
            live.ends_at.timestamp(),
            profile and profile.etag,
            live.mfa_enabled,
            live.authentication.acr,
            live.authentication.amr,
            live.authentication.authenticated_at.timestamp(),
        ]
    )
    versions = (live.session_version, live.access_version, live.catalogue_version)
    return b"D%d %d %d %b\n%b" % (*versions, text, profile.text if profile else b"")


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _decoded(copy: bytes) -> LiveSession | None:
    """Return the session of a copy. None, a miss, for the form of another release."""
    try:
        return _parsed(copy)
    except (AttributeError, TypeError, ValueError):
        log.warning("sessions.copy_unreadable")
        return None


def _parsed(copy: bytes) -> LiveSession:
    first_line, _, shown = copy[1:].partition(b"\n")
    session_version, access_version, catalogue_version, _, text = first_line.split(b" ", 4)
    fields: list[Any] = orjson.loads(text)
    session_id, user_id, username, roles, must_change_password, ends_at, etag, *proof = fields
    mfa_enabled, acr, amr, authenticated_at = proof
    return LiveSession(
        session_id=UUID(session_id),
        user_id=UUID(user_id),
        username=username,
        roles=tuple(roles),
        session_version=int(session_version),
        access_version=int(access_version),
        catalogue_version=int(catalogue_version),
        must_change_password=must_change_password,
        mfa_enabled=mfa_enabled,
        authentication=Authentication(
            acr, tuple(amr), datetime.fromtimestamp(authenticated_at, UTC)
        ),
        ends_at=datetime.fromtimestamp(ends_at, UTC),
        profile=None if etag is None else Profile(shown, etag),
    )
