"""Invalidations of cached sessions: published immediately, or by a thread once Redis is available.

An invalidation concerns the keys of one tag. While one is pending, this process trusts no copy with
its tag; copies with other tags, which may be on other servers, stay valid.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from userapi.infrastructure.key_tags import tag_of_user
from userapi.infrastructure.redis_commands import Command, RedisClient

log = structlog.get_logger(__name__)

# A lost invalidation breaks a guarantee, and a lost lookup costs a query: invalidations wait
# longer than lookups, which every request makes.
TIMEOUT_SECONDS = 0.5
BREAKER_SECONDS = 0.1
AT_ONCE = 500


class Invalidations:
    """Publishes invalidations, and retries several times a second what could not be published."""

    def __init__(self, store: RedisClient, *, copy_seconds: int) -> None:
        """`store` has a longer time-out than lookups, and its own circuit breakers."""
        self._store = store
        self._copy_seconds = copy_seconds
        # Unpublished commands by tag, each with the time when the last copy it concerns expires.
        self._pending: dict[str, dict[Command, float]] = {}
        self._lock = threading.Lock()
        self._publisher: threading.Thread | None = None

    def are_pending(self, user_id: UUID) -> bool:
        """Return whether invalidations of keys with the tag of this user are not published yet."""
        return bool(self._pending) and tag_of_user(user_id) in self._pending

    def publish(
        self, commands: Mapping[str, Sequence[Command]], *, needed_seconds: float | None = None
    ) -> None:
        """Publish commands by tag. They expire with the copies, unless another time is given."""
        # While the thread tries, no request tries itself: each would wait for a time-out.
        waiting = {
            tag: list(group)
            for tag, group in commands.items()
            if self._publisher is not None and self._store.is_unavailable(tag)
        }
        at_once = {tag: group for tag, group in commands.items() if tag not in waiting}
        unpublished = self._unpublished(at_once) | waiting
        if not unpublished:
            return
        until = time.monotonic() + (needed_seconds or self._copy_seconds)
        with self._lock:
            for tag, group in unpublished.items():
                self._pending.setdefault(tag, {}).update(dict.fromkeys(group, until))
            if self._publisher is None:
                self._publisher = threading.Thread(
                    target=self._retry, name="session-invalidations", daemon=True
                )
                self._publisher.start()
        log.warning(
            "sessions.invalidation_pending", applies_elsewhere_within_seconds=self._copy_seconds
        )

    def _unpublished(self, commands: Mapping[str, Sequence[Command]]) -> dict[str, list[Command]]:
        """Execute commands by tag, and return those that were not executed."""
        tags = {each: tag for tag, group in commands.items() for each in group}
        every = list(tags)
        unpublished: dict[str, list[Command]] = {}
        for start in range(0, len(every), AT_ONCE):
            for each in self._store.execute_each(every[start : start + AT_ONCE]):
                unpublished.setdefault(tags[each], []).append(each)
        return unpublished

    def _retry(self) -> None:
        """Publish the pending commands, until all are published or no longer needed."""
        while True:
            self._publish_pending()
            with self._lock:
                if not self._pending:
                    self._publisher = None
                    return
            time.sleep(BREAKER_SECONDS)

    def _publish_pending(self) -> None:
        now = time.monotonic()
        with self._lock:
            needed = {
                tag: [each for each, until in group.items() if until > now]
                for tag, group in self._pending.items()
            }
        unpublished = self._unpublished(needed)
        with self._lock:
            left = {
                tag: {
                    each: until
                    for each, until in group.items()
                    if until > now
                    and (each not in needed.get(tag, ()) or each in unpublished.get(tag, ()))
                }
                for tag, group in self._pending.items()
            }
            self._pending = {tag: group for tag, group in left.items() if group}
