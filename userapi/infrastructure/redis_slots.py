"""Which server of a Redis Cluster owns which slot, read from the nodes by redis-py."""

from typing import Any, cast

from redis.cluster import ClusterNode, NodesManager
from redis.connection import ConnectionPool, parse_url
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from userapi.infrastructure.redis_commands import PROBE_KEY
from userapi.settings.redis_urls import Address, ClusterUrl


class ClusterUnavailable(RedisConnectionError):
    """No node of the Cluster names the owners of the slots."""


class ClusterSlots:
    """Reads the owners of the slots. One thread at a time may use an instance."""

    def __init__(self, url: ClusterUrl, *, timeout_seconds: float) -> None:
        """`timeout_seconds` limits the time to connect, and the wait for each reply."""
        self._url = url
        self._options = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "protocol": 2,
            "driver_info": None,
            **cast(Any, parse_url)(url.server_url(url.nodes[0])),
        }
        for name in ("host", "port"):
            del self._options[name]
        self._nodes: NodesManager | None = None
        self._owners: dict[int, Address] = {}

    def owners(self, *, failed: Address | None = None) -> dict[int, Address]:
        """Return the owner of each slot that has one; `failed` is the last node to be asked.

        Raises RedisError if no node replies.
        """
        try:
            if self._nodes is None:
                self._nodes = self._connect()
            else:
                cast(Any, self._nodes).initialize(
                    additional_startup_nodes_info=list(dict.fromkeys(self._owners.values())),
                    last_failed_node_name=failed and "{}:{}".format(*failed),
                )
        except (RedisClusterException, IndexError) as exc:
            # IndexError: a Cluster in which no node owns a slot yet.
            if isinstance(exc.__cause__, RedisError):
                raise exc.__cause__ from exc
            raise ClusterUnavailable(str(exc)) from exc
        self._owners = {
            slot: (nodes[0].host, nodes[0].port) for slot, nodes in self._nodes.slots_cache.items()
        }
        return self._owners

    def close(self) -> None:
        """Close the connections to the nodes."""
        if self._nodes is not None:
            cast(Any, self._nodes).close()

    def _connect(self) -> NodesManager:
        """Return redis-py's view of the nodes, which it reads immediately."""
        nodes = [cast(Any, ClusterNode)(host, port) for host, port in self._url.nodes]
        manager: NodesManager = cast(Any, NodesManager)(
            nodes,
            from_url=True,
            require_full_coverage=False,
            # The names in the URL still lead to nodes after all addresses have changed.
            dynamic_startup_nodes=False,
            connection_pool_class=ConnectionPool,
            **self._options,
        )
        return manager


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return int(cast(Any, key_slot)(key.encode()))


def probe_keys(owners: dict[int, Address]) -> dict[Address, str]:
    """Return for each owner of slots the name of a key that it owns and that does not exist."""
    servers = set(owners.values())
    keys: dict[Address, str] = {}
    number = 0
    while len(keys) < len(servers):
        key = f"{PROBE_KEY}:{number}"
        owner = owners.get(slot_of(key))
        if owner is not None:
            keys.setdefault(owner, key)
        number += 1
    return keys
