"""PostgreSQL with streaming replication: a primary and two standbys.

Each standby receives the WAL through a proxy, so that a test can stall or cut replication. A
failover does what Patroni does: it cuts the old primary off, promotes the standby that has received
the most, and lets the others follow it.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg2

from tests.support.clusters.cluster import Cluster
from tests.support.guardian import guardian
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy
from tests.support.servers import PostgresServer, ServerFailed

CLONE_TIMEOUT_SECONDS = 60.0
FAILOVER_TIMEOUT_SECONDS = 30.0
PASSWORD = "tests-share-this-over-the-cluster-5gTq"


class PostgresNode(PostgresServer):
    """One server of a cluster. Its data come from initdb or are cloned from another node."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._password = PASSWORD
        self._generation = 0
        self._link: FaultProxy | None = None
        self.is_paused = False

    @property
    def options(self) -> dict[str, str | int]:
        """The parameters of the server's command line: a commit waits for its replication."""
        return {
            **super().options,
            "synchronous_commit": "on",
            "wal_level": "replica",
            "hot_standby": "on",
            "max_wal_senders": 10,
            "wal_retrieve_retry_interval": "100ms",
            "max_connections": 150,
        }

    @property
    def link(self) -> FaultProxy:
        """The connection over which this standby receives the WAL."""
        if self._link is None:
            raise RuntimeError("this node follows no other")
        return self._link

    @property
    def is_available(self) -> bool:
        """Return whether the server runs and is not paused."""
        return self.is_running and not self.is_paused

    def clone(self, primary: "PostgresNode") -> None:
        """Start as a new standby of `primary`, with a copy of its data."""
        self._generation += 1
        self._data = self.directory / f"data-{self._generation}"
        if self._account:
            os.chown(self.directory, *self._account)
        copying = self._spawn(
            [
                self._programs / "pg_basebackup",
                f"--pgdata={self._data}",
                f"--dbname={primary.url}",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--no-sync",
            ]
        )
        failed = copying.wait(CLONE_TIMEOUT_SECONDS) != 0
        guardian.release(copying.pid)
        if failed:
            raise ServerFailed(f"pg_basebackup failed:\n{self.log_tail()}")
        self._replace_link(primary)
        self._write("standby.signal", "")
        with (self._data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(f"primary_conninfo = '{self._connection_to_primary}'\n")
        self.launch()

    def follow(self, primary: "PostgresNode") -> None:
        """Receive the WAL from another primary from now on."""
        self._replace_link(primary)
        self.execute(f"ALTER SYSTEM SET primary_conninfo = '{self._connection_to_primary}'")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make this standby a primary and wait until it accepts writes."""
        self.execute("SELECT pg_promote(true, 30)")

    def received_bytes(self) -> int:
        """Return the position up to which this standby has the WAL."""
        position = "coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0')"
        return int(self.value(f"SELECT pg_wal_lsn_diff({position}, '0/0')"))

    def pause(self) -> None:
        """Freeze all processes of the server: connections stay open and get no answer."""
        self.is_paused = True
        super().pause()

    def resume(self) -> None:
        """Resume a paused server."""
        super().resume()
        self.is_paused = False

    def crash(self) -> None:
        """Kill all processes of the server at once with SIGKILL."""
        shared_memory = self._shared_memory_id()
        self._end(signal.SIGKILL)
        self.is_paused = False
        if shared_memory is not None:
            # PostgreSQL had no chance to remove it.
            subprocess.run(["ipcrm", "-m", shared_memory], check=False, capture_output=True)

    def kill(self) -> None:
        """End the server, whatever state it is in, and its replication link."""
        if self.is_running:
            self.crash()
        if self._link is not None:
            self._link.close()
            self._link = None

    def discard_data(self) -> None:
        """Remove the data of a server that has ended."""
        shutil.rmtree(self._data, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own and return its rows."""
        with self.connected(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, database: str = "postgres") -> Any:
        """Return the first value that a query returns, or None."""
        rows = self.execute(query, database)
        return rows[0][0] if rows else None

    @contextmanager
    def connected(self, database: str = "postgres") -> Iterator[Any]:
        """Open a connection in autocommit mode to one of the node's databases."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=PASSWORD,
            dbname=database,
            connect_timeout=10,
        )
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    @property
    def _connection_to_primary(self) -> str:
        return (
            f"host={self.link.host} port={self.link.port} user=postgres password={PASSWORD}"
            f" application_name={self.directory.name}"
        )

    def _replace_link(self, primary: "PostgresNode") -> None:
        if self._link is not None:
            self._link.close()
        self._link = FaultProxy("127.0.0.1", primary.port)

    def _write(self, name: str, text: str) -> None:
        path = self._data / name
        path.write_text(text, "utf-8")
        if self._account:
            os.chown(path, *self._account)

    def _shared_memory_id(self) -> str | None:
        """Return the id of the System V segment that guards the data directory."""
        try:
            lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
            return lines[6].split()[1]
        except (OSError, IndexError):
            return None


class PostgresCluster(Cluster):
    """Three nodes; `primary` is the one that accepts writes."""

    def __init__(self, directory: Path, *, nodes: int = 3) -> None:
        self.nodes: list[PostgresNode] = []
        for number in range(1, nodes + 1):
            path = directory / f"node{number}"
            path.mkdir(parents=True)
            self.nodes.append(PostgresNode(path))
        self.primary = self.nodes[0]

    @property
    def standbys(self) -> list[PostgresNode]:
        """The nodes that follow the primary and answer."""
        return [node for node in self.nodes if node is not self.primary and node.is_available]

    def start(self) -> Self:
        """Start all nodes and wait until both standbys stream."""
        self.primary.start()
        self.repair()
        return self

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    def repair(self) -> None:
        """Replace every node that is away by a fresh standby; replicate synchronously."""
        if not self.primary.is_available:
            raise RuntimeError("the cluster has no primary")
        # While no standby streams, a commit that waited for one would never end.
        self.replicate(synchronously=False)
        for node in self.nodes:
            if node is not self.primary and not (node.is_available and self._streams(node)):
                node.kill()
                node.discard_data()
                node.clone(self.primary)
        for node in self.standbys:
            node.link.pass_on()
            node.wait()
        wait_until(lambda: all(map(self._streams, self.standbys)), seconds=30)
        self.replicate(synchronously=True)

    def replicate(self, *, synchronously: bool) -> None:
        """Let commits wait for any one standby, or for none."""
        names = "ANY 1 (*)" if synchronously else ""
        for node in self.nodes:
            if node.is_available:
                node.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
                node.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self.primary.value("SHOW synchronous_standby_names") == names)

    def stall_replication(self) -> None:
        """Hold the WAL back: connections stay open and nothing arrives."""
        for node in self.standbys:
            node.link.black_hole()

    def resume_replication(self) -> None:
        """Deliver what was held back, and everything after it."""
        for node in self.standbys:
            node.link.pass_on()

    def fail_over(self, *, deliver_backlog: bool = False) -> float:
        """Promote the standby that has received the most; return when it accepts writes.

        What the old primary has not delivered by now is lost, also when it only hangs. With
        `deliver_backlog` the standbys still receive what a stalled link holds of a killed primary.
        """
        standbys = self.standbys
        for node in standbys:
            if deliver_backlog:
                node.link.pass_on()
            else:
                node.link.refuse()
        receiving = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        for node in standbys:
            wait_until(lambda node=node: node.value(receiving) == 0)  # type: ignore[misc]
        heir = max(standbys, key=PostgresNode.received_bytes)
        heir.promote()
        promoted_at = time.monotonic()
        self.primary = heir
        for node in standbys:
            if node is not heir:
                node.follow(heir)
        return promoted_at

    def url(self, database: str, nodes: Sequence[PostgresNode] | None = None) -> str:
        """Return a URL that names these nodes in this order, or all of them."""
        listed = nodes or self.nodes
        hosts = ",".join("127.0.0.1" for _ in listed)
        ports = ",".join(str(node.port) for node in listed)
        return (
            f"postgresql://postgres:{quote(PASSWORD)}@/{database}?host={hosts}&port={ports}"
            "&target_session_attrs=read-write"
        )

    def make_database(self, name: str, template: str) -> None:
        """Make a database as a copy of another."""
        self.primary.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.primary.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def _streams(self, node: PostgresNode) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_replication"
            f" WHERE state = 'streaming' AND application_name = '{node.directory.name}'"
        )
        return bool(self.primary.value(query))
