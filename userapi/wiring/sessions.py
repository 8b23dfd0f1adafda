"""Sessions, and where they are cached and requests are counted: in Redis if there is one."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.accounts.views import ShownUsers
from userapi.infrastructure.rate_counters import MemoryRateCounter, RateCounter
from userapi.sessions.copy_store import CopyStore
from userapi.sessions.limits import SessionLimits
from userapi.sessions.service import Sessions
from userapi.sessions.status import DatabaseLiveSessions, LiveSessions
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class SessionServices:
    """The services about sessions and the rate of requests."""

    copies: CopyStore | None
    """None without Redis."""
    live_sessions: LiveSessions
    rates: RateCounter
    sessions: Sessions


def build_sessions(foundation: Foundation) -> SessionServices:
    """Build the services about sessions and the rate of requests."""
    settings, clock = foundation.settings, foundation.clock
    limits = _limits(settings)
    live: LiveSessions = DatabaseLiveSessions(clock, ShownUsers(), idle_timeout=limits.idle_timeout)
    rates: RateCounter = MemoryRateCounter(clock)
    copies: CopyStore | None = None
    if settings.redis_url:
        # Loads redis-py, which an installation without Redis does not need.
        from userapi.wiring.redis import build_in_redis

        cached, rates = build_in_redis(settings, clock, database=live)
        live, copies = cached, cached.copies
    return SessionServices(
        copies=copies,
        live_sessions=live,
        rates=rates,
        sessions=Sessions(recorder=foundation.recorder, live=live, limits=limits),
    )


def _limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        max_per_user=settings.session_max_per_user,
        idle_timeout=timedelta(days=settings.session_idle_timeout_days),
        lifetime=timedelta(days=settings.jwt_refresh_token_expire_days),
        remembered_lifetime=timedelta(days=settings.session_absolute_lifetime_days),
    )
