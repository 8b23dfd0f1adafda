"""The compose file with three servers of each kind, as far as it can be checked without an engine.

Patroni is not installed here; the scripts of Redis and its Sentinels run.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.support.clusters.redis_nodes import client_of
from tests.support.polling import wait_until
from tests.support.programs import REDIS
from tests.support.servers import Server, redis_serves
from userapi.infrastructure.database.hosts import names_several_hosts
from userapi.rabbitmq_nodes import rabbitmq_nodes
from userapi.settings import Settings
from userapi.settings.redis_urls import parse_sentinel_url

REPOSITORY = Path(__file__).resolve().parents[2]
SINGLE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
HA: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.ha.yml").read_text("utf-8"))
OURS = ("migration", "service", "worker")
SERVERS = sorted(set(HA["services"]) - set(OURS))
PATRONI = REPOSITORY / "deploy" / "patroni"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of fresh secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    script = REPOSITORY / "scripts" / "make_secrets.sh"
    subprocess.run([script, folder], check=True, capture_output=True)
    return folder


def environment_of(name: str, secrets: Path) -> dict[str, str]:
    """Return the variables of one of our containers, with the defaults of the compose file."""
    merged = SINGLE["services"][name]["environment"] | HA["services"][name]["environment"]
    return {
        variable: str(value).replace("/run/secrets", str(secrets))
        for variable, value in merged.items()
        if "${" not in str(value)
    }


@pytest.mark.parametrize("name", OURS)
def test_our_containers_reach_all_servers(name: str, secrets: Path, tmp_path: Path) -> None:
    settings = Settings.from_env(environment_of(name, secrets), instance_dir=tmp_path)

    role = "userapi_owner" if name == "migration" else "userapi"
    hosts = "postgresql:5432,postgresql2:5432,postgresql3:5432"
    assert f"://{role}:" in settings.database_url
    assert f"@{hosts}/userapi?target_session_attrs=read-write" in settings.database_url
    assert names_several_hosts(settings.database_url)
    sentinels = parse_sentinel_url(settings.redis_url)
    assert sentinels.sentinels == tuple((f"sentinel{n}", 26379) for n in (1, 2, 3))
    password, of_sentinels = (
        (secrets / name).read_text("utf-8")
        for name in ("redis_password", "redis_sentinel_password")
    )
    assert sentinels.server_options["password"] == password
    assert sentinels.sentinel_options["password"] == of_sentinels
    nodes = [node.host for node in rabbitmq_nodes(settings.rabbitmq_url)]
    assert nodes == ["rabbitmq", "rabbitmq2", "rabbitmq3"]
    named = {
        *nodes,
        *(host for host, _ in sentinels.sentinels),
        *hosts.replace(":5432", "").split(","),
    }
    assert named <= set(HA["services"])


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_locked_down_and_watched(name: str) -> None:
    server = HA["services"][name]

    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert "cap_add" not in server and "privileged" not in server and "ports" not in server
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert server["networks"] == ["internal"]
    assert server["restart"] == "unless-stopped"
    assert "healthcheck" in server
    assert server["image"].rpartition(":")[2] not in ("", "latest")
    # Only root owns a new volume of etcd's image.
    assert name.startswith("etcd") or not server["user"].startswith(("0", "root"))
    # Servers find each other by the names of their hosts.
    assert name.startswith("etcd") or server["hostname"] == name


def test_everything_that_is_used_is_declared(secrets: Path) -> None:
    declared = {*SINGLE["secrets"], *HA["secrets"]}
    volumes = {*SINGLE["volumes"], *HA["volumes"]}
    services = {*SINGLE["services"], *HA["services"]}

    assert {path.name for path in secrets.iterdir()} == declared
    for name, source in HA["secrets"].items():
        assert source == {"file": f"./secrets/{name}"}
    for service in HA["services"].values():
        assert set(service.get("secrets", [])) <= declared
        assert set(service.get("depends_on", {})) <= services
        for source, _, *mode in (v.split(":") for v in service.get("volumes", [])):
            if source.startswith("./"):
                assert (REPOSITORY / source).is_file() and mode == ["ro"]
            else:
                assert source in volumes


def test_no_two_servers_share_a_volume() -> None:
    mounted = [
        volume.partition(":")[0]
        for service in HA["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith("./")
    ]

    assert len(mounted) == len(set(mounted)) == 12


def test_the_addresses_follow_a_new_password(tmp_path: Path) -> None:
    script = [REPOSITORY / "scripts" / "make_secrets.sh", tmp_path]
    subprocess.run(script, check=True, capture_output=True)
    (tmp_path / "redis_password").unlink()

    subprocess.run(script, check=True, capture_output=True)

    password = (tmp_path / "redis_password").read_text("utf-8")
    assert f":{password}@sentinel1" in (tmp_path / "redis_url").read_text("utf-8")


def test_patroni_acknowledges_only_what_two_servers_have() -> None:
    dcs = yaml.safe_load((PATRONI / "patroni.yml").read_text("utf-8"))["bootstrap"]["dcs"]

    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"]) == ("quorum", True)
    assert dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]  # Patroni requires it.


def test_the_image_of_patroni_has_versions_and_no_root() -> None:
    dockerfile = (PATRONI / "Dockerfile").read_text("utf-8")

    assert "FROM postgres:16-" in dockerfile
    assert "psycopg2-binary]==" in dockerfile
    assert "\nUSER 999:999\n" in dockerfile


def test_the_nodes_of_rabbitmq_know_each_other() -> None:
    text = (REPOSITORY / "deploy" / "rabbitmq" / "cluster.conf").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    options = dict(line.split(" = ") for line in lines)

    nodes = [options[f"cluster_formation.classic_config.nodes.{n}"] for n in (1, 2, 3)]
    assert nodes == ["rabbit@rabbitmq", "rabbit@rabbitmq2", "rabbit@rabbitmq3"]
    assert options["cluster_partition_handling"] == "pause_minority"


class Scripted(Server):
    """A Redis or a Sentinel that a script of the deployment starts."""

    name = "redis"

    def __init__(self, directory: Path, script: str, secrets: Path, **variables: str) -> None:
        directory.mkdir()
        super().__init__(directory)
        self._script = REPOSITORY / "deploy" / "redis" / script
        name = "redis_password" if script == "server.sh" else "redis_sentinel_password"
        self._password = (secrets / name).read_text("utf-8")
        self._variables = {
            "PATH": f"{REDIS.require().parent}:{os.environ['PATH']}",
            "SECRETS_FOLDER": str(secrets),
            "FOLDER": str(directory),
            "NAME": "127.0.0.1",
            "PORT": str(self.port),
            **variables,
        }

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return client_of(self.url)

    def launch(self) -> None:
        self._process = self._spawn(["sh", self._script], environment=self._variables)

    def _serves(self) -> bool:
        return redis_serves(self.url)


@pytest.fixture
def start(tmp_path: Path, secrets: Path) -> Iterator[Callable[..., Scripted]]:
    """Start a server by its script; it ends with the test."""
    with ExitStack() as stack:

        def start(name: str, script: str, **variables: str) -> Scripted:
            return stack.enter_context(Scripted(tmp_path / name, script, secrets, **variables))

        yield start


@pytest.mark.thorough
def test_sentinels_promote_a_replica_and_remember_it(start: Callable[..., Scripted]) -> None:
    master = start("redis", "server.sh")
    first = {"MASTER": "127.0.0.1", "MASTER_PORT": str(master.port)}
    replicas = [start(f"redis{n}", "server.sh", **first) for n in (2, 3)]
    sentinels = [start(f"sentinel{n}", "sentinel.sh", **first) for n in (1, 2, 3)]
    wait_until(lambda: all(known(sentinel) == (2, 2) for sentinel in sentinels), seconds=60)
    with master.client as client:
        wait_until(lambda: client.info("replication")["min_slaves_good_slaves"] == 2, seconds=30)
        policy = client.config_get("maxmemory-policy", "save")

    master.crash()
    ports = {str(replica.port) for replica in replicas}
    wait_until(lambda: {port_of_master(sentinel) for sentinel in sentinels} < ports, seconds=60)
    promoted = port_of_master(sentinels[0])
    sentinels[0].stop()
    sentinels[0].start()

    assert policy == {"maxmemory-policy": "noeviction", "save": ""}
    assert port_of_master(sentinels[0]) == promoted
    new_master = next(replica for replica in replicas if str(replica.port) == promoted)
    with new_master.client as client:
        # Its replica follows it, or it would accept no writes.
        wait_until(lambda: accepts_writes(client), seconds=60)


def known(sentinel: Scripted) -> tuple[int, int]:
    """Return how many replicas and how many other Sentinels a Sentinel knows."""
    with sentinel.client as client:
        replicas = client.execute_command("SENTINEL", "REPLICAS", "mymaster")
        others = client.execute_command("SENTINEL", "SENTINELS", "mymaster")
    return len(replicas), len(others)


def port_of_master(sentinel: Scripted) -> str:
    with sentinel.client as client:
        address = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
    return str(address[1].decode() if isinstance(address[1], bytes) else address[1])


def accepts_writes(client: redis.Redis) -> bool:
    try:
        return bool(client.set("userapi:probe", "1", px=1))
    except redis.RedisError:
        return False
