"""Redis: whether it accepts writes, what it evicts when full, and whether it can fail over."""

from collections.abc import Iterator, Mapping

import redis

from userapi.diagnosis.checks import CHECK_SECONDS, Check, Status
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.redis_client import require_writable
from userapi.infrastructure.redis_pools import SentinelsUnavailable, connection_pool
from userapi.settings.redis_urls import is_sentinel_url

TIMEOUT_SECONDS = 2
# A part of the error of a Redis that rejects writes → what it means, and the fix.
_REJECTED_WRITES = (
    (
        "used memory",
        "is full and rejects writes (OOM)",
        "Raise maxmemory, or find what fills it: redis-cli --bigkeys.",
    ),
    (
        "read only replica",
        "is a replica and rejects writes (READONLY)",
        "Set REDIS_URL to the primary.",
    ),
    (
        "MISCONF",
        "cannot save its data to disk and rejects writes (MISCONF)",
        "Free disk space or correct the permissions; its log has the cause.",
    ),
    (
        "NOREPLICAS",
        "has too few replicas and rejects writes (NOREPLICAS)",
        "Restore the replicas, or lower min-replicas-to-write.",
    ),
)


def check(url: str) -> Check:
    """Return whether Redis accepts writes. Raises RedisError."""
    if not url:
        return Check(status=Status.DISABLED)
    client = _client(url, CHECK_SECONDS)
    try:
        require_writable(client)
    finally:
        client.close()
    return Check(status=Status.UP)


def findings(url: str) -> Iterator[Finding]:
    """Yield whether Redis accepts writes, and whether it evicts what the service needs."""
    if not url:
        yield Finding(
            "redis",
            Level.OK,
            "not configured: sessions are checked in the database, limits count per process",
        )
        return
    client = _client(url, TIMEOUT_SECONDS)
    try:
        require_writable(client)
        memory = client.info("memory")
        replication = client.info("replication")
    except redis.AuthenticationError:
        yield Finding("redis", Level.FAULT, "rejects the password", "Correct it in REDIS_URL.")
    except SentinelsUnavailable:
        yield Finding(
            "redis",
            Level.FAULT,
            "no Sentinel names a master",
            "Start the Sentinels, or correct the hosts, the name of the master and"
            " sentinel_username in REDIS_URL, and REDIS_SENTINEL_PASSWORD.",
        )
    except redis.ResponseError as exc:
        yield _rejection(exc)
    except (redis.RedisError, OSError) as exc:
        yield Finding(
            "redis",
            Level.FAULT,
            f"does not answer ({type(exc).__name__})",
            "Start Redis, or correct REDIS_URL.",
        )
    else:
        yield Finding("redis", Level.OK, "answers")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        yield from warnings(
            "redis",
            (
                memory.get("maxmemory") and policy != "noeviction",
                f"a full Redis evicts console sessions and rate-limit counters ({policy})",
                "Set maxmemory-policy to noeviction; the service works without Redis.",
            ),
        )
        if is_sentinel_url(url):
            yield from _failover_warnings(replication)
    finally:
        client.close()


def _client(url: str, seconds: float) -> redis.Redis:
    return redis.Redis.from_pool(connection_pool(url, timeout_seconds=seconds, retry=None))


def _failover_warnings(replication: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what prevents a failover, or makes it unsafe."""
    yield from warnings(
        "redis",
        (
            not replication.get("connected_slaves"),
            "the master has no replica to fail over to",
            "Start a replica; with min-replicas-to-write, start two.",
        ),
        (
            # Redis reports it only if both parameters are set.
            "min_slaves_good_slaves" not in replication,
            "a master that lost its replicas accepts writes",
            "Set min-replicas-to-write to 1 and min-replicas-max-lag to 2.",
        ),
    )


def _rejection(error: redis.ResponseError) -> Finding:
    """Return what it means that Redis rejected a command."""
    for part, problem, fix in _REJECTED_WRITES:
        if part in str(error):
            return Finding("redis", Level.FAULT, problem, fix)
    return Finding(
        "redis",
        Level.WARNING,
        f"answers, but not to INFO ({type(error).__name__})",
        "Allow its user to call INFO, or check maxmemory-policy yourself.",
    )
