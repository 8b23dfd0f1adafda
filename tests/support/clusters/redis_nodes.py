"""Redis with replicas: single nodes, and a master with its replica."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.clusters.certificates import Certificates
from tests.support.clusters.cluster import Cluster
from tests.support.polling import wait_until
from tests.support.servers import RedisServer, redis_serves

PASSWORD = "tests-share-this-over-the-cluster-8wNz"


class RedisNode(RedisServer):
    """One Redis of several that share a password. It starts as a replica of `master`, if given."""

    def __init__(
        self,
        directory: Path,
        *,
        master: "RedisNode | None" = None,
        certificates: Certificates | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)
        self._password = PASSWORD
        self._certificates = certificates
        self._options = dict(options or {})
        self.master_port = master.port if master else None

    @property
    def options(self) -> dict[str, str]:
        """The parameters of the server's command line."""
        options = super().options | {
            "masterauth": self._password,
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **self._options,
        }
        if self._certificates is not None:
            options |= tls_options(self.port, self._certificates)
        if self.master_port is not None:
            options["replicaof"] = f"127.0.0.1 {self.master_port}"
        return options

    @property
    def url(self) -> str:
        """The URL of database 0."""
        if self._certificates is None:
            return super().url
        return (
            f"rediss://:{self._password}@127.0.0.1:{self.port}/0"
            f"?ssl_ca_certs={self._certificates.authority}"
        )

    @property
    def client(self) -> redis.Redis:
        """Return a client of this node alone. Close it after use."""
        return client_of(self._url_for_tests)

    @property
    def _url_for_tests(self) -> str:
        """The URL that accepts a certificate of another machine."""
        return self.url if self._certificates is None else f"{self.url}&ssl_check_hostname=no"

    def _serves(self) -> bool:
        return redis_serves(self._url_for_tests)

    def role(self) -> str:
        """Return `master` or `slave`, or nothing while connections are reset to change it."""
        with self.client as client:
            try:
                return str(client.info("replication")["role"])
            except redis.ConnectionError:
                return ""

    def is_replicating(self) -> bool:
        """Return whether this node is a replica in step with its master."""
        with self.client as client:
            info = client.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    def make_user(self, name: str, password: str, rules: str) -> None:
        """Make a user of the access control list."""
        with self.client as client:
            client.execute_command("ACL", "SETUSER", name, "on", f">{password}", *rules.split())


class RedisPair(Cluster):
    """A master and a replica without anything that fails over by itself."""

    def __init__(self, directory: Path, *, master_options: Mapping[str, str] | None = None) -> None:
        self.master = RedisNode(directory / "master", options=master_options)
        self.replica = RedisNode(directory / "replica", master=self.master)

    def start(self) -> Self:
        """Start both and wait until the replica is in step."""
        self.master.start()
        self.replica.start()
        wait_until(self.replica.is_replicating, seconds=20)
        return self

    def stop(self) -> None:
        """End both."""
        for node in (self.master, self.replica):
            node.kill()

    def wait_until_in_step(self) -> None:
        """Wait until the replica has everything that the master has written."""
        with self.master.client as client:
            wait_until(lambda: client.wait(1, 200) == 1)

    def cut_replica_off(self) -> None:
        """Let the replica follow a server that does not exist: it keeps what it has."""
        with self.replica.client as client:
            # Nobody listens on the discard port.
            client.execute_command("REPLICAOF", "127.0.0.1", "9")

    def promote_replica(self) -> None:
        """Make the replica a master, with whatever it has received."""
        with self.replica.client as client:
            client.execute_command("REPLICAOF", "NO", "ONE")


def client_of(url: str) -> redis.Redis:
    """Return a client that reports a failure at once. Close it after use."""
    return redis.Redis.from_url(
        url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
    )


def tls_options(port: int, certificates: Certificates) -> dict[str, str]:
    """Return what makes a Redis or a Sentinel serve TLS alone."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.authority),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }
