"""Live sessions with copies in Redis that cannot outlive a revocation (see `copy_store`)."""

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

from userapi.clock import Clock
from userapi.infrastructure.key_tags import tag_of_user
from userapi.infrastructure.rate_counters import Condition
from userapi.infrastructure.redis_commands import Command, RedisClient, command
from userapi.sessions.copies import MAX_CACHED_COPIES, decoded, encoded, in_doubt_key
from userapi.sessions.copy_store import ENDED, CopyStore, Place, Versions, liveness
from userapi.sessions.status import IN_DOUBT_SECONDS, LiveSession, LiveSessions, SessionOfUser


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
        self.copies = CopyStore(
            copy_seconds=copy_seconds,
            lookups=lookups,
            invalidations=invalidations,
            shared_with_previous_release=shared_with_previous_release,
        )
        self._clock = clock
        self._notes = invalidations
        self._database = database

    def lookup(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Command | None:
        """Return the command whose reply `find` accepts; None while Redis is not trusted."""
        return self.copies.lookup(_place(session_id, user_id), version=session_version)

    def liveness(self, session_id: UUID, *, user_id: UUID, session_version: int) -> Condition:
        """Return what Redis holds for a live session: a copy of this version, no placeholder."""
        return liveness(_place(session_id, user_id), version=session_version)

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session, or None if it has ended or never existed."""
        place = _place(session_id, user_id)
        reply = self.copies.read(place, version=session_version, reply=reply)
        if reply == ENDED:
            return None
        if isinstance(reply, bytes) and reply.startswith(b"D"):
            live = decoded(reply)
            if live is not None and live.ends_at > self._clock.now():
                return live
        found = self._database.find(session_id, user_id=user_id, session_version=session_version)
        if found is None:
            self.copies.fill_with_ended(place, reply)
        elif found.user_id == user_id:
            versions = Versions(
                found.session_version, found.access_version, found.catalogue_version
            )
            self.copies.fill(place, reply, versions, encoded(found))
        return found

    def session_changed(self, session_id: UUID, *, user_id: UUID, version: int) -> None:
        """Invalidate the copy of a session with a new version."""
        self.copies.changed(_place(session_id, user_id), version=version)

    def sessions_ended(self, sessions: Sequence[SessionOfUser]) -> None:
        """Invalidate the copies of sessions that have ended: many in one round trip."""
        self.copies.ended([_place(session_id, user_id) for session_id, user_id in sessions])

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Invalidate the copies of a user's sessions and API keys."""
        self.copies.owner_changed(user_id, version=access_version)

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Invalidate the copies of all sessions and API keys."""
        self.copies.catalogue_changed(version=catalogue_version)

    def rotation_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> None:
        """Store this in the memory of the process and, as soon as it is available, in Redis."""
        self._database.rotation_in_doubt(session_id, user_id=user_id, generation=generation)
        key = in_doubt_key(session_id, user_id)
        note = command("SET", key, generation, "EX", IN_DOUBT_SECONDS)
        self.copies.invalidations.publish(
            {tag_of_user(user_id): [note]}, needed_seconds=IN_DOUBT_SECONDS
        )

    def is_in_doubt(self, session_id: UUID, *, user_id: UUID, generation: int) -> bool:
        """Return whether any process reported it; only this process, while Redis is unavailable."""
        if self._database.is_in_doubt(session_id, user_id=user_id, generation=generation):
            return True
        replies = self._notes.execute(command("GET", in_doubt_key(session_id, user_id)))
        return replies == [str(generation).encode()]


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _place(session_id: UUID, user_id: UUID) -> Place:
    return Place("s", session_id.hex, user_id)
