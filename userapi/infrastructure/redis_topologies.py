"""The three ways to run Redis: a server, a master that Sentinels name, and a Cluster."""

from userapi.infrastructure.circuit_breaker import OPEN_SECONDS, CircuitBreaker
from userapi.infrastructure.redis_client import TIMEOUT_SECONDS, Redis
from userapi.infrastructure.redis_cluster import RedisCluster
from userapi.infrastructure.redis_commands import RedisClient
from userapi.settings.redis_urls import is_cluster_url


def redis_client(
    url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, open_seconds: float = OPEN_SECONDS
) -> RedisClient:
    """Return a client for the kind of Redis that the URL names; it connects when it is used.

    `timeout_seconds` limits the time to connect, and the wait for each reply. A server that failed
    is tried again after `open_seconds`.
    """
    if is_cluster_url(url):
        return RedisCluster(url, timeout_seconds=timeout_seconds, open_seconds=open_seconds)
    return Redis(url, timeout_seconds=timeout_seconds, breaker=CircuitBreaker(open_seconds))
