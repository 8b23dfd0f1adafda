"""Live sessions with copies in Redis, which no race brings back to life.

A copy carries the versions of its session and its user. Whoever changes one of them commits first
and then leaves the new version in Redis; whoever fills reads the database first and then stores
only what is not older than what is there. So a fill that was overtaken by a revocation is
refused, an emptied Redis means a look at the database, and a request costs one round trip.

A process that cannot reach Redis while it revokes leaves the copies that others hold: they run out
after `session_cache_seconds` (10) at the latest. That is the bound within which a revocation holds
everywhere with Redis cut off from one process; otherwise it holds on the next request.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import structlog

from userapi.clock import Clock
from userapi.expiring_store import Redis
from userapi.sessions.status import LiveSession, LiveSessions
from userapi.settings import Settings

log = structlog.get_logger(__name__)

# Longer than any fill can take: a statement ends after 3 seconds.
NOTES_KEPT_SECONDS = 60
CATALOGUE = "userapi:live:roles"

# A session's key holds "<version>L<copy>", "<version>E" (ended) or "<version>N" (something newer
# than the copies of before); the keys of users and of the catalogue hold a version.
_FILL = """
local present = redis.call('GET', KEYS[1])
local version = tonumber(ARGV[2])
local stored = true
if present then
  local known, state = string.match(present, '^(%d+)(%u)')
  known = tonumber(known)
  if known > version or (known == version and state == 'E') then stored = false end
end
if stored then redis.call('SET', KEYS[1], ARGV[2] .. 'L' .. ARGV[1], 'PX', ARGV[5]) end
for index, value in ipairs({ARGV[3], ARGV[4]}) do
  local key = KEYS[index + 1]
  local known = tonumber(redis.call('GET', key))
  if not known or known <= tonumber(value) then redis.call('SET', key, value, 'PX', ARGV[6]) end
end
return stored and 1 or 0
"""
_NOTE = """
local present = redis.call('GET', KEYS[1])
if present then
  local known = tonumber(string.match(present, '^(%d+)'))
  if known > tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
"""


class RedisLiveSessions:
    """Asks Redis first, and the database on a miss or when Redis is away."""

    def __init__(
        self, settings: Settings, clock: Clock, *, store: Redis, database: LiveSessions
    ) -> None:
        self._clock = clock
        self._store = store
        self._database = database
        self._copy_milliseconds = settings.session_cache_seconds * 1000
        # A user's and the catalogue's version must outlive every copy that is compared with it.
        self._note_milliseconds = NOTES_KEPT_SECONDS * 1000 + self._copy_milliseconds
        self._fill = store.client.register_script(_FILL)
        self._note = store.client.register_script(_NOTE)

    def find(self, session_id: UUID, *, user_id: UUID) -> LiveSession | None:
        """Return the live session, or None where it has ended or never was."""
        keys = [_session_key(session_id), _user_key(user_id), CATALOGUE]
        found: Any = self._store.ask(lambda client: client.mget(keys))
        if found is not None:
            copy, access_version, catalogue_version = found
            if copy is not None and copy.lstrip(b"0123456789")[:1] == b"E":
                return None
            live = _read(copy, access_version, catalogue_version)
            if live is not None and live.user_id == user_id:
                return live if live.ends_at > self._clock.now() else None
        live = self._database.find(session_id, user_id=user_id)
        if live is not None and found is not None:
            self._keep(keys, live)
        return live

    def _keep(self, keys: list[str], live: LiveSession) -> None:
        arguments: list[bytes | int] = [
            _write(live),
            live.session_version,
            live.access_version,
            live.catalogue_version,
            self._copy_milliseconds,
            self._note_milliseconds,
        ]
        self._store.ask(lambda client: self._fill(keys=keys, args=arguments, client=client))

    def session_changed(self, session_id: UUID, *, version: int, live: bool) -> None:
        """Take note, after the commit, that a session has a new version or has ended."""
        self._leave(_session_key(session_id), version, "N" if live else "E")

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Take note, after the commit, that what a user may do has changed."""
        self._leave(_user_key(user_id), access_version, "")

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Take note, after the commit, that a role grants something else."""
        self._leave(CATALOGUE, catalogue_version, "")

    def _leave(self, key: str, version: int, state: str) -> None:
        arguments: list[int | str] = [version, state, self._note_milliseconds]
        left = self._store.insist(
            lambda client: self._note(keys=[key], args=arguments, client=client)
        )
        if left is None:
            log.warning("sessions.note_not_left", bound_seconds=self._copy_milliseconds // 1000)


def _session_key(session_id: UUID) -> str:
    return f"userapi:live:s:{session_id}"


def _user_key(user_id: UUID) -> str:
    return f"userapi:live:u:{user_id}"


def _write(live: LiveSession) -> bytes:
    return orjson.dumps(
        [
            str(live.session_id),
            str(live.user_id),
            live.username,
            live.roles,
            live.session_version,
            live.access_version,
            live.must_change_password,
            live.ends_at.timestamp(),
        ]
    )


def _read(
    copy: bytes | None, access_version: bytes | None, catalogue_version: bytes | None
) -> LiveSession | None:
    """Return what a copy says, or None where it is missing or older than what is known."""
    if copy is None or access_version is None or catalogue_version is None:
        return None
    _, mark, text = copy.partition(b"L")
    if not mark:
        return None
    session_id, user_id, username, roles, session_version, access, must_change, ends_at = (
        orjson.loads(text)
    )
    if access != int(access_version):
        return None
    return LiveSession(
        session_id=UUID(session_id),
        user_id=UUID(user_id),
        username=username,
        roles=tuple(roles),
        session_version=session_version,
        access_version=access,
        catalogue_version=int(catalogue_version),
        must_change_password=must_change,
        ends_at=datetime.fromtimestamp(ends_at, UTC),
    )
