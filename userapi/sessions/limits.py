"""How many sessions a user may have, and how long they live."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


class SessionEnds(Protocol):
    """The times that determine whether a session is live."""

    @property
    def rotated_at(self) -> datetime: ...

    @property
    def expires_at(self) -> datetime: ...

    @property
    def revoked_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """How many sessions a user may have, and how long they live."""

    max_per_user: int
    idle_timeout: timedelta
    lifetime: timedelta
    remembered_lifetime: timedelta

    def lifetime_of(self, *, remember_me: bool) -> timedelta:
        """Return how long a new session lives; with `remember_me`, never shorter than without."""
        if remember_me:
            return self.remembered_lifetime
        return min(self.lifetime, self.remembered_lifetime)

    def is_live(self, session: SessionEnds, now: datetime) -> bool:
        """Return whether a session has neither ended, expired, nor been idle for too long."""
        ends_at = min(session.expires_at, session.rotated_at + self.idle_timeout)
        return session.revoked_at is None and now < ends_at
