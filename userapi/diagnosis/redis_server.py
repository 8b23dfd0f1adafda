"""Redis: whether it accepts writes, and what it evicts when it is full."""

from collections.abc import Iterator

import redis

from userapi.diagnosis.checks import CHECK_SECONDS, Check, Status
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.redis_client import require_writable

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
    except redis.AuthenticationError:
        yield Finding("redis", Level.FAULT, "rejects the password", "Correct it in REDIS_URL.")
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
    finally:
        client.close()


def _client(url: str, seconds: float) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None
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
