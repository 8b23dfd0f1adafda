"""Redis with Sentinel: a master, its replicas and three Sentinels that fail over by themselves."""

from pathlib import Path
from typing import Self

import redis

from tests.support.clusters.certificates import Certificates
from tests.support.clusters.cluster import Cluster
from tests.support.clusters.redis_nodes import PASSWORD, RedisNode, tls_options
from tests.support.polling import wait_until
from tests.support.programs import REDIS
from tests.support.servers import Server, redis_serves

MASTER = "mymaster"
SENTINELS = 3
DOWN_AFTER_MILLISECONDS = 1000


class SentinelNode(Server):
    """One Sentinel. It writes what it learns into its own configuration."""

    name = "sentinel"

    def __init__(
        self, directory: Path, master: RedisNode, certificates: Certificates | None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)
        self._configuration = directory / "sentinel.conf"
        self._certificates = certificates
        lines = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(directory)}
        if certificates is not None:
            lines |= tls_options(self.port, certificates)
        text = "\n".join(f"{name} {value}" for name, value in lines.items())
        self._configuration.write_text(
            f"{text}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
            f"sentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MILLISECONDS}\n"
            # Limits how soon a second failover may follow, too: twice this.
            f"sentinel failover-timeout {MASTER} 3000\n",
            "utf-8",
        )

    @property
    def url(self) -> str:
        """The URL of this Sentinel."""
        if self._certificates is None:
            return f"redis://127.0.0.1:{self.port}/0"
        authority = self._certificates.authority
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={authority}&ssl_check_hostname=no"

    @property
    def client(self) -> redis.Redis:
        """Return a client of this Sentinel. Close it after use."""
        return redis.Redis.from_url(self.url, socket_timeout=5, decode_responses=True)

    def launch(self) -> None:
        """Start the Sentinel."""
        self._process = self._spawn([REDIS.require(), self._configuration, "--sentinel"])

    def master_port(self) -> int:
        """Return the port of the server that this Sentinel calls the master."""
        with self.client as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(port)

    def knows(self, *, replicas: int, sentinels: int) -> bool:
        """Return whether this Sentinel has found so many healthy replicas and other Sentinels."""
        with self.client as client:
            listed = client.execute_command("SENTINEL", "REPLICAS", MASTER)
            others = client.execute_command("SENTINEL", "SENTINELS", MASTER)
        usable = [
            one for one in map(_fields, listed) if not {"s_down", "disconnected"} & _flags(one)
        ]
        return len(usable) >= replicas and len(others) >= sentinels

    def _serves(self) -> bool:
        return redis_serves(self.url)


class RedisSentinels(Cluster):
    """One master, one replica and three Sentinels."""

    def __init__(self, directory: Path, *, certificates: Certificates | None = None) -> None:
        first = RedisNode(directory / "node1", certificates=certificates)
        second = RedisNode(directory / "node2", master=first, certificates=certificates)
        self.nodes = [first, second]
        self.sentinels = [
            SentinelNode(directory / f"sentinel{number}", first, certificates)
            for number in range(1, SENTINELS + 1)
        ]
        self._scheme = "redis+sentinel" if certificates is None else "rediss+sentinel"

    @property
    def master(self) -> RedisNode:
        """The node that the Sentinels call the master."""
        port = next(s for s in self.sentinels if s.is_running).master_port()
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> Self:
        """Start everything and wait until every Sentinel could fail over."""
        for node in self.nodes:
            node.start()
        wait_until(self.nodes[1].is_replicating, seconds=20)
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_until_complete()
        return self

    def stop(self) -> None:
        """End everything."""
        for server in (*self.sentinels, *self.nodes):
            server.kill()

    def repair(self) -> None:
        """Start what is away, former masters as replicas of the present one."""
        for sentinel in self.sentinels:
            if not sentinel.is_running:
                sentinel.start()
        master = self.master
        for node in self.nodes:
            node.master_port = None if node is master else master.port
            if not node.is_running:
                node.start()
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        """Wait until every Sentinel knows the replica and the other Sentinels."""
        for sentinel in self.sentinels:
            wait_until(
                lambda sentinel=sentinel: sentinel.knows(  # type: ignore[misc]
                    replicas=len(self.nodes) - 1, sentinels=SENTINELS - 1
                ),
                seconds=40,
            )

    def wait_until_promoted(self, old_master: RedisNode) -> None:
        """Wait until another node accepts writes as the master."""

        def promoted() -> bool:
            master = self.master
            return master is not old_master and master.role() == "master"

        wait_until(promoted, seconds=30)

    def fail_over(self) -> None:
        """Order a failover: both nodes keep their connections. Return when it has happened."""
        old = self.master
        sentinel = next(s for s in self.sentinels if s.is_running)

        def ordered() -> bool:
            with sentinel.client as client:
                try:
                    client.execute_command("SENTINEL", "FAILOVER", MASTER)
                except redis.ResponseError:
                    return False  # The former failover is not over.
            return True

        wait_until(ordered, seconds=30)
        self.wait_until_promoted(old)

    def url(self, credentials: str = f":{PASSWORD}", query: str = "") -> str:
        """Return the URL of the master by way of all Sentinels."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{self._scheme}://{credentials}@{hosts}/{MASTER}/0{query}"


def _fields(entry: object) -> dict[str, str]:
    """Return an entry of a Sentinel's list, which is a mapping or a flat list of pairs."""
    if isinstance(entry, dict):
        return {str(key): str(value) for key, value in entry.items()}
    assert isinstance(entry, list)
    return {str(k): str(v) for k, v in zip(entry[::2], entry[1::2], strict=True)}


def _flags(fields: dict[str, str]) -> set[str]:
    return set(fields.get("flags", "").split(","))
