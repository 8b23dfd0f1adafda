"""Caches the responses of the service about tokens for a short time."""

import threading
from dataclasses import dataclass

from userapi_client.answers import Answer
from userapi_client.errors import TokenRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    outcome: Answer | TokenRefused
    asked_at: float
    until: float


class AnswerCache:
    """Responses by the SHA-256 of their token.

    Rejections have a separate limit, so that many invalid tokens do not evict valid ones.
    """

    def __init__(self, *, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._lock = threading.Lock()
        self._good: dict[bytes, _Kept] = {}
        self._bad: dict[bytes, _Kept] = {}

    def find(self, digest: bytes, now: float) -> Answer | TokenRefused | None:
        """Return an outcome that is recent enough."""
        kept = self._good.get(digest) or self._bad.get(digest)
        if kept is None or not kept.asked_at <= now < kept.until:
            return None
        return kept.outcome

    def keep(self, digest: bytes, outcome: Answer | TokenRefused, *, asked_at: float) -> None:
        """Cache an outcome, unless that of a later query is cached already."""
        until = asked_at + self._seconds
        if isinstance(outcome, Answer) and outcome.principal.expires_at is not None:
            until = min(until, outcome.principal.expires_at.timestamp())
        with self._lock:
            kept = self._good.get(digest) or self._bad.get(digest)
            if kept is not None and kept.asked_at > asked_at:
                return
            self._good.pop(digest, None)
            self._bad.pop(digest, None)
            room = self._good if isinstance(outcome, Answer) else self._bad
            while room and len(room) >= self._size:
                del room[next(iter(room))]
            room[digest] = _Kept(outcome=outcome, asked_at=asked_at, until=until)

    def renew(self) -> None:
        """Replace a lock that was held when the process was forked."""
        self._lock = threading.Lock()
