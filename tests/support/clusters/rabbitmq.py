"""Three RabbitMQ nodes that form one cluster and share one epmd."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.clusters.cluster import Cluster
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.servers import RabbitmqServer, Server, end_process

PASSWORD = "tests-share-this-over-the-cluster-3kRx"
COOKIE = "userapi-tests-cluster-cookie"
NODES = 3


class RabbitmqNode(RabbitmqServer):
    """One node. The first node must serve before the others start: they join it."""

    def __init__(self, directory: Path, *, epmd_port: int, seed: "RabbitmqNode | None") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)
        self._password = PASSWORD
        self._epmd_port = epmd_port
        self._seed = seed

    @property
    def node_name(self) -> str:
        """The name of the node in the cluster."""
        return self.environment["RABBITMQ_NODENAME"]

    def launch(self) -> None:
        """Start the node; epmd runs already."""
        home = self.directory / "home"
        if not home.exists():
            self._write_configuration(home)
        self._process = self._spawn([self._program], environment=self.environment)

    def ask(self, *arguments: str) -> str:
        """Run a command of `rabbitmqctl` on this node and return what it prints."""
        return subprocess.run(
            [self._program.with_name("rabbitmqctl"), "--quiet", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def _write_configuration(self, home: Path) -> None:
        super()._write_configuration(home)
        cookie = home / ".erlang.cookie"
        cookie.write_text(COOKIE, "utf-8")
        cookie.chmod(0o400)
        if self._seed is not None:
            with (home / "rabbitmq.conf").open("a", encoding="utf-8") as file:
                file.write(
                    "cluster_formation.peer_discovery_backend = classic_config\n"
                    f"cluster_formation.classic_config.nodes.1 = {self._seed.node_name}\n"
                    f"cluster_formation.classic_config.nodes.2 = {self.node_name}\n"
                    "cluster_formation.randomized_startup_delay_range.min = 0\n"
                    "cluster_formation.randomized_startup_delay_range.max = 1\n"
                )

    def _end(self, signal_number: signal.Signals) -> None:
        # Not that of RabbitmqServer, which ends an epmd of its own.
        Server._end(self, signal_number)


class RabbitmqCluster(Cluster):
    """Three nodes; every queue declared with `x-queue-type: quorum` has a copy on each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        first = RabbitmqNode(directory / "node1", epmd_port=self._epmd_port, seed=None)
        self.nodes = [first] + [
            RabbitmqNode(directory / f"node{number}", epmd_port=self._epmd_port, seed=first)
            for number in range(2, NODES + 1)
        ]

    def start(self) -> Self:
        """Start the nodes and wait until all are members."""
        first, *others = self.nodes
        self._epmd = first._spawn(
            [first._epmd_program, "-address", "127.0.0.1", "-port", str(self._epmd_port)],
            environment=first.environment,
        )
        first.start()
        for node in others:
            node.launch()
        for node in others:
            node.wait()
        wait_until(lambda: len(self.running_members()) == NODES, seconds=60)
        return self

    def stop(self) -> None:
        """End all nodes and epmd."""
        for node in self.nodes:
            node.kill()
        if self._epmd is not None:
            end_process(self._epmd, signal.SIGKILL)
            self._epmd = None

    def repair(self) -> None:
        """Start the nodes that are away and wait until all are members again."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        wait_until(lambda: len(self.running_members()) == NODES, seconds=60)

    def running_members(self) -> list[str]:
        """Return the names of the members that run, as a running one sees them."""
        node = next(node for node in self.nodes if node.is_running)
        status: dict[str, Any] = json.loads(node.ask("cluster_status", "--formatter", "json"))
        return [str(name) for name in status["running_nodes"]]

    def raise_memory_alarm(self) -> None:
        """Let the first node block everyone who publishes."""
        self.nodes[0].control("set_vm_memory_high_watermark", "absolute", "1")

    def clear_memory_alarm(self) -> None:
        """Let everyone publish again."""
        self.nodes[0].control("set_vm_memory_high_watermark", "0.6")

    def url(self, nodes: list[RabbitmqNode] | None = None) -> str:
        """Return a URL that names these nodes in this order, or all of them."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes or self.nodes)
        return f"amqp://tests:{PASSWORD}@{hosts}/%2F"
