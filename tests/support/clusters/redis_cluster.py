"""Redis Cluster: three masters, with a replica each or without."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import redis
from redis.crc import key_slot

from tests.support.clusters.certificates import Certificates
from tests.support.clusters.cluster import Cluster
from tests.support.clusters.redis_nodes import PASSWORD, RedisNode
from tests.support.polling import wait_until
from tests.support.ports import free_port

SHARDS = 3
SLOTS = 16384
NODE_TIMEOUT_MILLISECONDS = 2000


class ClusterNode(RedisNode):
    """One node of a Redis Cluster."""

    def __init__(self, directory: Path, certificates: Certificates | None = None) -> None:
        super().__init__(
            directory,
            certificates=certificates,
            options={
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": str(NODE_TIMEOUT_MILLISECONDS),
                "cluster-require-full-coverage": "no",
                # Otherwise it is the port plus 10000, which another program may have.
                "cluster-port": str(free_port()),
                "databases": "1",
                **({"tls-cluster": "yes"} if certificates else {}),
            },
        )
        self.bus_port = int(self._options["cluster-port"])

    @property
    def id(self) -> str:
        """The name of the node in the cluster."""
        return str(self.call("CLUSTER", "MYID"))

    def call(self, *words: object) -> str:
        """Run a command and return the answer as text."""
        with self.client as client:
            answer = client.execute_command(*words)
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def known_nodes(self) -> int:
        """Return how many nodes this one knows, itself included."""
        return int(self._info()["cluster_known_nodes"])

    def is_ok(self) -> bool:
        """Return whether this node sees all slots served."""
        info = self._info()
        return info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == SLOTS

    def _info(self) -> dict[str, str]:
        with self.client as client:
            raw = client.execute_command("CLUSTER", "INFO")
        if isinstance(raw, dict):
            return {str(key): str(value) for key, value in raw.items()}
        text = raw.decode() if isinstance(raw, bytes) else str(raw)
        return dict(line.split(":", 1) for line in text.split())


class RedisShards(Cluster):
    """A Redis Cluster of three shards; `masters[i]` starts with the i-th third of the slots."""

    def __init__(
        self,
        directory: Path,
        *,
        with_replicas: bool = True,
        certificates: Certificates | None = None,
    ) -> None:
        self._certificates = certificates
        numbers = range(1, SHARDS + 1)
        self.masters = [ClusterNode(directory / f"master{n}", certificates) for n in numbers]
        self.replicas = [
            ClusterNode(directory / f"replica{n}", certificates) for n in numbers if with_replicas
        ]

    @property
    def nodes(self) -> list[ClusterNode]:
        """All nodes."""
        return [*self.masters, *self.replicas]

    def start(self) -> Self:
        """Start all nodes, join them and wait until all slots are served with replicas."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        for number, node in enumerate(self.masters):
            first, last = slots_of(number)
            node.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(self.nodes, 1):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number)
        for node in self.nodes[1:]:
            self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        for node in self.nodes:
            wait_until(lambda node=node: node.known_nodes() == len(self.nodes), seconds=30)  # type: ignore[misc]
        for master, replica in zip(self.masters, self.replicas, strict=False):
            master_id = master.id
            wait_until(
                lambda replica=replica, name=master_id: _replicates(replica, name),  # type: ignore[misc]
                seconds=20,
            )
        for replica in self.replicas:
            wait_until(replica.is_replicating, seconds=30)
        for node in self.nodes:
            wait_until(node.is_ok, seconds=30)
        return self

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    def url(
        self,
        credentials: str = f":{PASSWORD}",
        query: str = "",
        nodes: Sequence[ClusterNode] | None = None,
    ) -> str:
        """Return the URL that names some or all nodes as entry points."""
        scheme = "redis" if self._certificates is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes or self.nodes)
        return f"{scheme}+cluster://{credentials}@{hosts}{query}"

    def owner_of(self, key: str) -> ClusterNode:
        """Return the node that has the slot of a key."""
        slot = int(key_slot(key.encode()))
        with next(node for node in self.nodes if node.is_running).client as client:
            ranges = client.execute_command("CLUSTER", "SLOTS")
        port = next(int(each[2][1]) for each in ranges if each[0] <= slot <= each[1])
        return next(node for node in self.nodes if node.port == port)

    def isolate(self, master: ClusterNode) -> None:
        """Let a master know no other node, so that it does not learn of its replica's promotion.

        Clients that ask it find a Cluster in which it alone owns slots.
        """
        for name in [node.id for node in self.nodes if node is not master]:
            master.call("CLUSTER", "FORGET", name)

    def promote(self, replica: ClusterNode) -> None:
        """Make a replica the owner of its master's slots at once, as after a lost majority."""
        replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: replica.role() == "master", seconds=30)

    def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Open a slot for a move: keys that `source` no longer has are answered with ASK."""
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode) -> int:
        """Move all keys of an open slot and return how many there were."""
        moved = 0
        with source.client as client:
            while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                client.execute_command(
                    "MIGRATE", "127.0.0.1", target.port, "", 0, 5000,
                    "AUTH", PASSWORD, "KEYS", *keys,
                )  # fmt: skip
                moved += len(keys)
        return moved

    def end_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Give an open slot to `target`: `source` answers with MOVED from now on."""
        new_owner = target.id
        for node in (target, source, *(m for m in self.masters if m not in (target, source))):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", new_owner)

    def wait_until_promoted(self, replica: ClusterNode) -> None:
        """Wait until a replica has become a master and all nodes that run see all slots served."""
        wait_until(lambda: replica.role() == "master", seconds=30)
        for node in self.nodes:
            if node.is_running:
                wait_until(node.is_ok, seconds=30)


def slots_of(number: int) -> tuple[int, int]:
    """Return the first and the last slot of a shard."""
    return number * SLOTS // SHARDS, (number + 1) * SLOTS // SHARDS - 1


def _replicates(replica: ClusterNode, master_id: str) -> bool:
    """Make a node the replica of another; return whether it already knew that one as a master."""
    try:
        replica.call("CLUSTER", "REPLICATE", master_id)
    except redis.ResponseError:
        return False
    return True
