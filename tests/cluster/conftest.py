"""Fixtures of the cluster tests: one cluster at a time in a worker, and the service before it."""

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.clusters.cluster import Cluster
from tests.support.clusters.load import Session, log_in
from tests.support.clusters.postgresql import PostgresCluster, PostgresNode
from tests.support.clusters.rabbitmq import RabbitmqCluster
from tests.support.clusters.redis_cluster import RedisShards
from tests.support.clusters.redis_nodes import RedisNode
from tests.support.clusters.sentinel import RedisSentinels
from tests.support.databases import PostgresDatabase
from tests.support.deployments import migrate_with
from tests.support.guardian import guardian
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.servers import new_run_directory
from tests.support.service_clients import PASSWORD, persistent_client
from tests.support.worker_process import WorkerProcess
from userapi_client import Tokens

# Tests of one kind run one after the other: each worker starts each kind once.
KINDS = ("postgresql", "sentinels", "shards", "rabbitmq")
TIMEOUT_SECONDS = 240
TEMPLATE = "service_template"
ENVIRONMENT: Mapping[str, str] = {
    "ENVIRONMENT": "testing",
    "SECRET_KEY": "clusters-sign-cursors-with-this-4fZq81Lw0c",
    "JWT_SECRET_KEY": "clusters-sign-tokens-with-this-9sXe37Kd5m",
    "PASSWORD_PEPPER": "clusters-hash-passwords-with-this-2bTn64Rj",
    "ENCRYPTION_KEY": "clusters-encrypt-with-this-7hRw52Jx9pQe",
    "PASSWORD_HASH_ROUNDS": "4",
    "RATE_LIMIT_ENABLED": "false",
    "WEB_CONCURRENCY": "1",
}
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests by the cluster that they use, and give each of them more time."""
    ours = [item for item in items if item.get_closest_marker("cluster")]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))
    items.sort(key=_kind_number)


def _kind_number(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    return next((number for number, kind in enumerate(KINDS, 1) if kind in names), 0)


AnyCluster = TypeVar("AnyCluster", bound=Cluster)


@dataclass(slots=True)
class Clusters:
    """Runs one cluster at a time: a cluster of another kind ends it."""

    running: Cluster | None = None
    directory: Path | None = None

    def use(self, kind: type[AnyCluster]) -> AnyCluster:
        """Return the running cluster if it is of this kind, or start one."""
        if isinstance(self.running, kind):
            return self.running
        self.stop()
        self.directory = new_run_directory()
        cluster = kind(self.directory)
        self.running = cluster
        cluster.start()
        return cluster

    def stop(self) -> None:
        """End the cluster and discard its data."""
        if self.running is not None:
            self.running.stop()
            self.running = None
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            guardian.keep(self.directory)
            self.directory = None


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    """Return what runs one cluster at a time."""
    clusters = Clusters()
    yield clusters
    clusters.stop()


@pytest.fixture
def postgresql(clusters: Clusters, run_directory: Path) -> PostgresCluster:
    """Return a primary with two synchronous standbys; former failures are repaired."""
    cluster = clusters.use(PostgresCluster)
    if not cluster.primary.is_available:
        # A test has failed between the fault and the failover.
        clusters.stop()
        cluster = clusters.use(PostgresCluster)
    cluster.repair()
    if not cluster.primary.value(f"SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'"):
        cluster.primary.execute(f"CREATE DATABASE \"{TEMPLATE}\" ENCODING 'UTF8'")
        migrate_with(run_directory / "instance")(cluster.url(TEMPLATE, [cluster.primary]))
    return cluster


@pytest.fixture
def database_name(postgresql: PostgresCluster) -> str:
    """Return the name of a new migrated database on the cluster."""
    name = f"service_{next(_numbers)}"
    postgresql.make_database(name, TEMPLATE)
    return name


@pytest.fixture
def sentinels(clusters: Clusters) -> RedisSentinels:
    """Return a Redis master and replica with three Sentinels; former failures are repaired."""
    cluster = clusters.use(RedisSentinels)
    cluster.repair()
    return cluster


@pytest.fixture
def shards(clusters: Clusters) -> Iterator[RedisShards]:
    """Return a Redis Cluster of its own for the test: a moved slot or a promotion stays."""
    yield clusters.use(RedisShards)
    clusters.stop()


@pytest.fixture
def rabbitmq(clusters: Clusters) -> RabbitmqCluster:
    """Return three RabbitMQ nodes; former failures are repaired."""
    cluster = clusters.use(RabbitmqCluster)
    cluster.repair()
    return cluster


@dataclass(slots=True)
class Deployed:
    """A service with an administrator, and everything that belongs to it."""

    service: GunicornService
    admin: Session

    @property
    def base_url(self) -> str:
        """The URL that paths are appended to."""
        return self.service.base_url

    @property
    def token(self) -> str:
        """The administrator's access token."""
        return self.admin.client.token or ""

    def make_users(self, count: int) -> list[str]:
        """Make users whose password is `PASSWORD` and return their names."""
        names = [f"user{next(_numbers)}" for _ in range(count)]
        with persistent_client(
            self.base_url, Tokens(self.token, self.admin.refresh_token)
        ) as client:
            for name in names:
                client.users.create(username=name, email=f"{name}@example.com", password=PASSWORD)
        return names

    def log_in(self, count: int) -> list[Session]:
        """Make users and log each of them in."""
        return [log_in(self.base_url, name) for name in self.make_users(count)]


@dataclass(slots=True)
class Deploy:
    """Starts services and workers that end with the test."""

    directory: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def service(self, database_url: str, **environment: str) -> Deployed:
        """Start a service on a migrated database and log its administrator in."""
        service = self.process(database_url, **environment)
        add_administrator(service, PASSWORD)
        return Deployed(service, log_in(service.base_url, "admin"))

    def process(self, database_url: str, **environment: str) -> GunicornService:
        """Start a further service on a database that has an administrator."""
        variables = {**ENVIRONMENT, "DATABASE_URL": database_url, **environment}
        return self.stack.enter_context(GunicornService(variables))

    def worker(self, database_url: str, **environment: str) -> WorkerProcess:
        """Start `flask worker` and wait until it works."""
        number = next(_numbers)
        variables = {
            **ENVIRONMENT,
            "DATABASE_URL": database_url,
            "INSTANCE_DIR": str(self.directory / f"instance-{number}"),
            **environment,
        }
        worker = WorkerProcess(variables, self.directory / f"worker-{number}.log")
        self.stack.callback(_end, worker)
        worker.wait_until_started()
        return worker


def _end(worker: WorkerProcess) -> None:
    if worker.is_running:
        worker.end(signal.SIGKILL)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Return what starts services and workers for this test."""
    deploy = Deploy(tmp_path)
    with deploy.stack:
        yield deploy


def lost(node: PostgresNode, database: str, user_ids: set[str]) -> dict[str, int]:
    """Count the users that were acknowledged and are incomplete, by what is missing."""
    queries = {
        "users": "SELECT id::text FROM users",
        "roles": "SELECT user_id::text FROM user_roles",
        "audit rows": "SELECT target_id FROM audit_logs WHERE action = 'user.created'",
        "events": "SELECT subject FROM outbox_events WHERE type = 'user.created'",
    }
    return {
        name: len(missing)
        for name, query in queries.items()
        if (missing := user_ids - {str(row[0]) for row in node.execute(query, database)})
    }


@pytest.fixture
def single_database(make_database: Callable[[str], PostgresDatabase]) -> Iterator[str]:
    """Return the URL of a new migrated database on a server without standbys."""
    yield make_database(f"cluster_{next(_numbers)}").url


# Limits that no client reaches: their counters are writes that accompany each session lookup.
COUNTED: Mapping[str, str] = {
    "RATE_LIMIT_ENABLED": "true",
    "RATE_LIMIT_DEFAULT": "1000000/minute",
    "RATE_LIMIT_LOGIN": "1000000/minute",
    "RATE_LIMIT_REFRESH": "1000000/minute",
}


def scripts_run(node: RedisNode) -> int:
    """Return how many scripts a Redis has run: each session lookup is one."""
    with node.client as client:
        statistics = client.info("commandstats")
    return sum(
        int(statistics[name]["calls"])
        for name in ("cmdstat_evalsha", "cmdstat_eval")
        if name in statistics
    )
