"""Live sessions with copies in Redis, which no race brings back to life.

A request costs one round trip, also together with its rate limit: one script returns the copy if
its versions are the present ones. Otherwise it puts a place-holder there, and the process reads the
database and stores what it has read, which a second script allows only

- while its own place-holder is still there: a revocation puts a tombstone over it, and an emptied
  Redis has lost it, so a fill that was overtaken by either is refused; and
- if what it has read is not older than the versions that others have left for the user and the
  catalogue of roles.

A copy also needs those versions to be there at all, so a Redis that has lost some of its keys means
a look at the database. Tombstones outlive every place-holder.

A revocation holds on the next request in every process. If Redis is away when a process revokes,
the process goes by the database until a thread has left the note, which it tries several times a
second; and whoever finds Redis back goes by the database for a moment longer, so that it believes
no copy before the others have left their notes. Only if one process alone cannot reach Redis, or
dies between its commit and the note, do the copies that others go by still hold: a copy lives
`session_cache_seconds` (10) from the moment when its place-holder was put there, before its state
was read, and that is the bound.
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
from userapi.infrastructure.redis_client import Command, Redis, Script, command
from userapi.sessions.status import LiveSession, LiveSessions, Profile

log = structlog.get_logger(__name__)

# A note that is not left breaks a promise, a copy that is not read costs a query: worth a longer
# wait than a question of every request is.
INVALIDATION_TIMEOUT_SECONDS = 0.5
NOTES_AT_ONCE = 500
INVALIDATION_BREAKER_SECONDS = 0.1
# Time for all who could not leave notes to leave them.
RECONNECT_GRACE_SECONDS = 1.5
NOTES_OUTLIVE_COPIES_SECONDS = 60
REMEMBERED_COPIES = 4096
CATALOGUE = "userapi:live:roles"
ENDED = b"E"

# The key of a session holds "C<its version> <user's version> <catalogue's version> <JSON>", a copy
# with the user's profile on a line below; or "P<moment>", the place-holder of a fill; or "E", the
# tombstone of a session that has ended.
_ASK = Script("""
local found = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
if found[1] then
  if string.sub(found[1], 1, 1) ~= 'C' then return found[1] end
  local session, user, roles = string.match(found[1], '^C(%d+) (%d+) (%d+) ')
  if user == found[2] and roles == found[3] and tonumber(session) >= tonumber(ARGV[1]) then
    return found[1]
  end
end
local now = redis.call('TIME')
local place = 'P' .. now[1] .. '.' .. now[2]
redis.call('SET', KEYS[1], place, 'PX', ARGV[2])
return {place}
""")
_FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local life = redis.call('PTTL', KEYS[1])
for index = 2, 3 do
  local known = redis.call('GET', KEYS[index])
  if known and tonumber(known) > tonumber(ARGV[index + 1]) then
    redis.call('DEL', KEYS[1])
    return 0
  end
end
for index = 2, 3 do redis.call('SET', KEYS[index], ARGV[index + 1], 'PX', ARGV[5]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', math.max(life, 1))
return 1
""")
_FILL_WITH_ENDED = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'E', 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
return 1
""")
_RENEW = Script("""
local present = redis.call('GET', KEYS[1])
if not present or present == 'E' then return 0 end
local version = string.match(present, '^C(%d+) ')
if version and tonumber(version) >= tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
""")
_RAISE = Script("""
local known = redis.call('GET', KEYS[1])
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")


class RedisLiveSessions:
    """Asks Redis first, and the database on a miss or when Redis is away."""

    def __init__(
        self,
        clock: Clock,
        *,
        copy_seconds: int,
        questions: Redis,
        notes: Redis,
        database: LiveSessions,
    ) -> None:
        """`notes` waits longer than `questions`, with a breaker of its own."""
        self._clock = clock
        self._questions = questions
        self._notes = notes
        self._database = database
        self._copy_seconds = copy_seconds
        self._copy_milliseconds = self._copy_seconds * 1000
        self._note_milliseconds = self._copy_milliseconds + NOTES_OUTLIVE_COPIES_SECONDS * 1000
        self._remembered: dict[bytes, LiveSession] = {}
        # Notes that could not be left, each with the moment when nothing is left to be told.
        self._unsent: dict[Command, float] = {}
        self._lock = threading.Lock()
        self._messenger: threading.Thread | None = None

    def question(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return what to ask Redis for `find`; None while it is not to be believed."""
        if self._unsent or self._questions.came_back_within(RECONNECT_GRACE_SECONDS):
            return None
        return _question(session_id, user_id, session_version, self._copy_milliseconds)

    def liveness(self, session_id: UUID, *, session_version: int) -> Condition:
        """Return what Redis shows of a live session: a copy of this version, and no place-holder.

        The question has replaced a copy whose other versions are not the present ones.
        """
        return Condition(_session_key(session_id), met=f"C{session_version} ", undecided="P")

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, answer: object = None
    ) -> LiveSession | None:
        """Return the live session, or None where it has ended or never was."""
        if answer is None:
            answer = self._ask(session_id, user_id, session_version)
        if self._questions.came_back_within(RECONNECT_GRACE_SECONDS):
            answer = None
        if answer == ENDED:
            return None
        if isinstance(answer, bytes):
            live = self._read(answer)
            if live is not None and live.ends_at > self._clock.now():
                return live
        live = self._database.find(session_id, user_id=user_id, session_version=session_version)
        if isinstance(answer, list):
            self._fill(session_id, user_id, answer[0], live)
        return live

    def _ask(self, session_id: UUID, user_id: UUID, session_version: int) -> object:
        question = self.question(session_id, user_id=user_id, session_version=session_version)
        answers = self._questions.ask(question) if question else None
        return answers[0] if answers else None

    def _read(self, copy: bytes) -> LiveSession | None:
        """Return what a copy says; None for the place-holder of somebody else's fill."""
        live = self._remembered.get(copy)
        if live is None and copy[:1] == b"C":
            live = _decoded(copy)
            if len(self._remembered) >= REMEMBERED_COPIES:
                self._remembered.clear()
            self._remembered[copy] = live
        return live

    def _fill(
        self, session_id: UUID, user_id: UUID, place: bytes, live: LiveSession | None
    ) -> None:
        keys = _keys(session_id, user_id)
        if live is None:
            self._questions.ask(_FILL_WITH_ENDED.on(keys[0], given=(place,)))
        elif live.user_id == user_id:
            versions = (live.access_version, live.catalogue_version)
            given = (place, _encoded(live), *versions, self._note_milliseconds)
            self._questions.ask(_FILL.on(*keys, given=given))

    def session_changed(self, session_id: UUID, *, version: int, live: bool) -> None:
        """Take note, after the commit, that a session has a new version or has ended."""
        key = _session_key(session_id)
        if live:
            self._leave(_RENEW.on(key, given=(version,)))
        else:
            self._leave(command("SET", key, ENDED, "PX", self._note_milliseconds))

    def sessions_ended(self, session_ids: Sequence[UUID]) -> None:
        """Take note, after the commit, that sessions have ended: one round trip for many."""
        notes = [
            command("SET", _session_key(session_id), ENDED, "PX", self._note_milliseconds)
            for session_id in session_ids
        ]
        for start in range(0, len(notes), NOTES_AT_ONCE):
            self._leave(*notes[start : start + NOTES_AT_ONCE])

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Take note, after the commit, that a user may do or shows something else."""
        self._leave(_RAISE.on(_user_key(user_id), given=(access_version, self._note_milliseconds)))

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Take note, after the commit, that a role grants something else."""
        self._leave(_RAISE.on(CATALOGUE, given=(catalogue_version, self._note_milliseconds)))

    def _leave(self, *notes: Command) -> None:
        # Behind notes that wait nobody tries for themselves: it would cost each a time-out.
        if self._messenger is None and self._notes.ask(*notes) is not None:
            return
        with self._lock:
            until = time.monotonic() + self._copy_seconds
            self._unsent.update(dict.fromkeys(notes, until))
            if self._messenger is None:
                self._messenger = threading.Thread(
                    target=self._leave_unsent, name="session-notes", daemon=True
                )
                self._messenger.start()
        log.warning("sessions.note_not_left", holds_elsewhere_within_seconds=self._copy_seconds)

    def _leave_unsent(self) -> None:
        """Leave the notes that could not be left, until none is left or needed any more."""
        while True:
            self._send_notes()
            with self._lock:
                if not self._unsent:
                    self._messenger = None
                    return
            time.sleep(INVALIDATION_BREAKER_SECONDS)

    def _send_notes(self) -> None:
        now = time.monotonic()
        with self._lock:
            waiting = [note for note, until in self._unsent.items() if until > now]
        sent = waiting if waiting and self._notes.ask(*waiting) is not None else []
        with self._lock:
            self._unsent = {
                note: until
                for note, until in self._unsent.items()
                if until > now and note not in sent
            }


@lru_cache(maxsize=REMEMBERED_COPIES)
def _question(session_id: UUID, user_id: UUID, session_version: int, milliseconds: int) -> Command:
    return _ASK.on(*_keys(session_id, user_id), given=(session_version, milliseconds))


def _keys(session_id: UUID, user_id: UUID) -> tuple[str, str, str]:
    return _session_key(session_id), _user_key(user_id), CATALOGUE


def _session_key(session_id: UUID) -> str:
    return f"userapi:live:s:{session_id.hex}"


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
        ]
    )
    versions = (live.session_version, live.access_version, live.catalogue_version)
    return b"C%d %d %d %b\n%b" % (*versions, text, profile.text if profile else b"")


def _decoded(copy: bytes) -> LiveSession:
    first_line, _, shown = copy[1:].partition(b"\n")
    session_version, access_version, catalogue_version, text = first_line.split(b" ", 3)
    fields: list[Any] = orjson.loads(text)
    session_id, user_id, username, roles, must_change_password, ends_at, etag = fields
    return LiveSession(
        session_id=UUID(session_id),
        user_id=UUID(user_id),
        username=username,
        roles=tuple(roles),
        session_version=int(session_version),
        access_version=int(access_version),
        catalogue_version=int(catalogue_version),
        must_change_password=must_change_password,
        ends_at=datetime.fromtimestamp(ends_at, UTC),
        profile=None if etag is None else Profile(shown, etag),
    )
