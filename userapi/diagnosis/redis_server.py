"""Redis: whether it accepts writes, what it evicts when full, and whether it can fail over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import redis

from userapi.diagnosis.checks import CHECK_SECONDS, Check, DependencyDown, Status
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.key_tags import SLOTS
from userapi.infrastructure.redis_commands import PROBE_KEY
from userapi.infrastructure.redis_pools import SentinelsUnavailable, connection_pool
from userapi.infrastructure.redis_slots import ClusterSlots, ClusterUnavailable, probe_keys
from userapi.settings.redis_urls import is_cluster_url, is_sentinel_url, parse_cluster_url

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


class SlotsWithoutServer(redis.RedisError):
    """A part of the keys of a Cluster can neither be read nor written."""


@dataclass(frozen=True, slots=True)
class _Server:
    """A server, the prefix of findings about it, and a key that belongs to it."""

    prefix: str
    client: redis.Redis
    probe_key: str


def check(url: str) -> Check:
    """Return whether Redis accepts writes: every server that owns slots, in a Cluster.

    Raises DependencyDown, OSError.
    """
    if not url:
        return Check(status=Status.DISABLED)
    try:
        for server in _servers(url, CHECK_SECONDS):
            with server.client as client:
                require_writable(client, server.probe_key)
    except redis.RedisError as exc:
        raise DependencyDown(type(exc).__name__) from exc
    return Check(status=Status.UP)


def require_writable(client: redis.Redis, probe_key: str) -> None:
    """Raise RedisError unless Redis accepts writes now.

    A full Redis, a replica and one that cannot save reply to PING and reads, but reject the writes
    of sessions and counters. They reject before executing, so a write without effect is enough:
    SET with XX changes only a key that exists.
    """
    client.set(probe_key, "", xx=True, px=1)


def findings(url: str) -> Iterator[Finding]:
    """Yield whether Redis accepts writes, and whether it evicts what the service needs."""
    try:
        servers = _servers(url, TIMEOUT_SECONDS)
    except (redis.RedisError, OSError) as exc:
        yield _failure("", exc)
        return
    for server in servers:
        yield from _findings_of(server, can_fail_over=is_sentinel_url(url) or is_cluster_url(url))


def _findings_of(server: _Server, *, can_fail_over: bool) -> Iterator[Finding]:
    with server.client as client:
        try:
            require_writable(client, server.probe_key)
            memory = client.info("memory")
            replication = client.info("replication")
        except (redis.RedisError, OSError) as exc:
            yield _failure(server.prefix, exc)
            return
    yield Finding("redis", Level.OK, f"{server.prefix}answers")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    yield from warnings(
        "redis",
        (
            memory.get("maxmemory") and policy != "noeviction",
            f"{server.prefix}a full Redis evicts console sessions and rate-limit counters"
            f" ({policy})",
            "Set maxmemory-policy to noeviction; the service works without Redis.",
        ),
    )
    if can_fail_over:
        yield from _failover_warnings(server.prefix, replication)


def _servers(url: str, seconds: float) -> list[_Server]:
    """Return the servers that accept writes, or should. Raises RedisError for a Cluster."""
    if not is_cluster_url(url):
        return [_Server("", _client(url, seconds), PROBE_KEY)]
    parts = parse_cluster_url(url)
    slots = ClusterSlots(parts, timeout_seconds=seconds)
    try:
        owners = slots.owners()
    finally:
        slots.close()
    if len(owners) < SLOTS:
        raise SlotsWithoutServer(f"{SLOTS - len(owners)} slots have no server.")
    return [
        _Server("{}:{}: ".format(*address), _client(parts.server_url(address), seconds), key)
        for address, key in sorted(probe_keys(owners).items())
    ]


def _client(url: str, seconds: float) -> redis.Redis:
    return redis.Redis.from_pool(connection_pool(url, timeout_seconds=seconds, retry=None))


def _failure(prefix: str, error: Exception) -> Finding:
    """Return what it means that Redis cannot be used."""
    if isinstance(error, redis.AuthenticationError):
        return Finding(
            "redis", Level.FAULT, f"{prefix}rejects the password", "Correct it in REDIS_URL."
        )
    if isinstance(error, SentinelsUnavailable):
        return Finding(
            "redis",
            Level.FAULT,
            "no Sentinel names a master",
            "Start the Sentinels, or correct the hosts, the name of the master and"
            " sentinel_username in REDIS_URL, and REDIS_SENTINEL_PASSWORD.",
        )
    if isinstance(error, SlotsWithoutServer):
        return Finding(
            "redis",
            Level.FAULT,
            f"the Cluster is incomplete: {error}",
            "Repair it: redis-cli --cluster fix.",
        )
    if isinstance(error, ClusterUnavailable):
        return Finding(
            "redis",
            Level.FAULT,
            "no node names the servers of the Cluster",
            "Start the nodes in cluster mode, or correct their hosts in REDIS_URL.",
        )
    if isinstance(error, redis.ResponseError):
        return _rejection(prefix, error)
    return Finding(
        "redis",
        Level.FAULT,
        f"{prefix}does not answer ({type(error).__name__})",
        "Start Redis, or correct REDIS_URL.",
    )


def _failover_warnings(prefix: str, replication: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what prevents a failover, or makes it unsafe."""
    yield from warnings(
        "redis",
        (
            not replication.get("connected_slaves"),
            f"{prefix}the master has no replica to fail over to",
            "Start a replica; with min-replicas-to-write, start two.",
        ),
        (
            # Redis reports it only if both parameters are set.
            "min_slaves_good_slaves" not in replication,
            f"{prefix}a master that lost its replicas accepts writes",
            "Set min-replicas-to-write to 1 and min-replicas-max-lag to 2.",
        ),
    )


def _rejection(prefix: str, error: redis.ResponseError) -> Finding:
    """Return what it means that Redis rejected a command."""
    for part, problem, fix in _REJECTED_WRITES:
        if part in str(error):
            return Finding("redis", Level.FAULT, f"{prefix}{problem}", fix)
    return Finding(
        "redis",
        Level.WARNING,
        f"{prefix}answers, but not to INFO ({type(error).__name__})",
        "Allow its user to call INFO, or check maxmemory-policy yourself.",
    )
