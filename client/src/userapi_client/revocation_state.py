"""What events say about tokens: which are revoked, and which the service must confirm once.

Times of events and `iat` of tokens come from the same service, in whole seconds. A token that was
issued in the second of an event can be older or newer than it, so the service must confirm it. This
module does no input or output.
"""

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from userapi_client.claims import AccessToken

# Above this number of marks, one mark for all tokens replaces them.
MAX_MARKS = 100_000
# Shared by all subscriptions, so that a response from before a subscription covers none of its
# marks.
_numbers = itertools.count(1)
ENDS_ALL = frozenset(
    {"user.suspended", "user.deleted", "service_account.suspended", "service_account.deleted"}
)
CHANGES_SUBJECT = frozenset(
    {"user.password_changed", "user.roles_changed", "service_account.roles_changed"}
)
CHANGES_ROLES = frozenset({"role.updated", "role.deleted"})


class Verdict(StrEnum):
    """What to do with a token whose signature is valid."""

    ACCEPT = "accept"
    ASK = "ask"
    NO_CONNECTION = "no_connection"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class _Mark:
    """Tokens issued up to `until`, which the service must confirm unless it did since `number`."""

    until: float
    number: int


class RevocationState:
    """The state of one subscription. Threads may share it."""

    def __init__(self, *, leeway: float) -> None:
        self._leeway = leeway
        self._lock = threading.Lock()
        self._is_connected = False
        self._ended_sessions: set[str] = set()
        self._key_ends: dict[str, float] = {}
        self._ended_before: dict[str, float] = {}
        self._changed: dict[str, _Mark] = {}
        self._everyone = _Mark(0.0, 0)
        self.number = 0
        """Increases with each mark. A response of the service covers marks up to this number."""

    def connected(self, now: float) -> None:
        """Start to receive events: older tokens may have been revoked before."""
        with self._lock:
            self._mark_everyone(now + self._leeway)
            self._is_connected = True

    def disconnected(self) -> None:
        """Record that events are missed from now on."""
        self._is_connected = False

    def apply(self, event: Mapping[str, Any]) -> None:
        """Apply an event. Unknown types and broken events are ignored."""
        kind, subject, data = event.get("type"), event.get("subject"), event.get("data")
        second = _second(event.get("time"))
        if second is None or not isinstance(data, Mapping):
            return
        with self._lock:
            if kind == "session.revoked":
                self._ended_sessions.add(str(data.get("session_id")))
            elif kind in ("api_key.revoked", "api_key.rotated"):
                self._end_key(kind, data, second)
            elif kind in ENDS_ALL and isinstance(subject, str):
                self._ended_before[subject] = max(second, self._ended_before.get(subject, 0.0))
                self._mark(subject, second)
            elif kind in CHANGES_SUBJECT and isinstance(subject, str):
                self._mark(subject, second)
            elif kind in CHANGES_ROLES:
                self._mark_everyone(second)
            self._limit(second)

    def verdict(self, token: AccessToken, *, asked: int, now: float) -> Verdict:
        """Decide about a token; `asked` is the `number` from before the last query about it."""
        if token.session_id in self._ended_sessions:
            return Verdict.REVOKED
        if token.key_id is not None and self._key_ends.get(token.key_id, now + 1) <= now:
            return Verdict.REVOKED
        if token.issued_at < self._ended_before.get(token.subject, 0.0):
            return Verdict.REVOKED
        if not self._is_connected:
            return Verdict.NO_CONNECTION
        for mark in (self._everyone, self._changed.get(token.subject)):
            if mark is not None and token.issued_at <= mark.until and asked < mark.number:
                return Verdict.ASK
        return Verdict.ACCEPT

    def _end_key(self, kind: str, data: Mapping[str, Any], second: float) -> None:
        end = _second(data.get("expires_at")) if kind == "api_key.rotated" else second
        if end is not None:
            key_id = str(data.get("key_id"))
            self._key_ends[key_id] = min(end, self._key_ends.get(key_id, end))

    def _mark(self, subject: str, until: float) -> None:
        self.number = next(_numbers)
        self._changed[subject] = _Mark(until, self.number)

    def _mark_everyone(self, until: float) -> None:
        self.number = next(_numbers)
        self._everyone = _Mark(max(until, self._everyone.until), self.number)

    def _limit(self, second: float) -> None:
        """Replace too many marks by one for all tokens: the service has the information of each."""
        for marks in (self._ended_sessions, self._key_ends, self._ended_before, self._changed):
            if len(marks) > MAX_MARKS:
                marks.clear()
                self._mark_everyone(second + self._leeway)


def _second(text: object) -> float | None:
    """Return the whole second of a time with its zone, or None for anything else."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if found is None or found.tzinfo is None:
        return None
    return float(int(found.timestamp()))
