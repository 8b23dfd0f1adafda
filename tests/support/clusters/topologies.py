"""Redis as a server, behind a Sentinel, and as a Cluster, each as small as it can be."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.support.clusters.redis_cluster import RedisShards
from tests.support.clusters.redis_nodes import PASSWORD, RedisNode
from tests.support.clusters.sentinel import MASTER, SentinelNode


class Kind(StrEnum):
    """How Redis runs."""

    CLUSTER = "cluster"
    SENTINEL = "sentinel"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Topology:
    """The URL of a Redis, and the servers that accept its writes."""

    url: str
    servers: Sequence[RedisNode]

    def values(self, pattern: str) -> dict[str, bytes]:
        """Return the values of the keys that match, from all servers."""
        found: dict[str, bytes] = {}
        for server in self.servers:
            with server.client as client:
                for key in client.keys(pattern):
                    found[key.decode()] = client.get(key)
        return found

    def scripts_run(self) -> int:
        """Return how many scripts the servers have run."""
        calls = 0
        for server in self.servers:
            with server.client as client:
                statistics = client.info("commandstats")
            names = {"cmdstat_evalsha", "cmdstat_eval"} & statistics.keys()
            calls += sum(int(statistics[name]["calls"]) for name in names)
        return calls

    def forget_scripts(self) -> None:
        """Let the servers forget the texts of all scripts."""
        for server in self.servers:
            with server.client as client:
                client.script_flush()

    def empty(self) -> None:
        """Delete all keys."""
        for server in self.servers:
            with server.client as client:
                client.flushall()


@contextmanager
def running(kind: Kind, directory: Path) -> Iterator[Topology]:
    """Run Redis in this way."""
    with ExitStack() as stack:
        if kind is Kind.CLUSTER:
            shards = stack.enter_context(RedisShards(directory, with_replicas=False))
            yield Topology(shards.url(), shards.masters)
            return
        server = stack.enter_context(RedisNode(directory / "server"))
        url = server.url
        if kind is Kind.SENTINEL:
            sentinel = SentinelNode(directory / "sentinel", server, None)
            stack.enter_context(sentinel)
            url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/{MASTER}"
        yield Topology(url, [server])
