"""What uses Redis: the cache of live sessions, and the counters of rate limits."""

from userapi.clock import Clock
from userapi.infrastructure.redis_rate_counter import RedisRateCounter
from userapi.infrastructure.redis_topologies import redis_client
from userapi.sessions import invalidations
from userapi.sessions.cache import RedisLiveSessions
from userapi.sessions.status import LiveSessions
from userapi.settings import Settings
from userapi.settings.redis_urls import is_cluster_url


def build_in_redis(
    settings: Settings, clock: Clock, *, database: LiveSessions
) -> tuple[RedisLiveSessions, RedisRateCounter]:
    """Return the cache in front of `database`, and the counters. Connects when they are used."""
    store = redis_client(settings.redis_url)
    live = RedisLiveSessions(
        clock,
        copy_seconds=settings.session_cache_seconds,
        lookups=store,
        invalidations=redis_client(
            settings.redis_url,
            timeout_seconds=invalidations.TIMEOUT_SECONDS,
            open_seconds=invalidations.BREAKER_SECONDS,
        ),
        database=database,
        shared_with_previous_release=not is_cluster_url(settings.redis_url),
    )
    return live, RedisRateCounter(store, clock)
