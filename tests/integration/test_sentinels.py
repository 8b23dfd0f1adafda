"""Redis behind Sentinels: how the master is found, and when a connection to a server ends."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from flask import Flask

from tests.support.clusters.certificates import Certificates, make_certificates
from tests.support.clusters.redis_nodes import PASSWORD, RedisNode
from tests.support.clusters.sentinel import MASTER, SentinelNode
from tests.support.pages import PageReader
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.proxy import proxy_to, url_through
from tests.support.users import MakeUser
from userapi.infrastructure.circuit_breaker import CircuitBreaker
from userapi.infrastructure.redis_client import Redis
from userapi.infrastructure.redis_commands import command
from userapi.infrastructure.redis_pools import Sentinels, SentinelsUnavailable
from userapi.settings.redis_urls import parse_sentinel_url, with_sentinel_password

MakeApp = Callable[..., Flask]
SENTINEL_RULES = ("+sentinel|masters",)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[RedisNode]:
    with RedisNode(tmp_path / "master") as node:
        yield node


@pytest.fixture
def sentinel(tmp_path: Path, master: RedisNode) -> Iterator[SentinelNode]:
    with SentinelNode(tmp_path / "sentinel", master, None) as node:
        yield node


def url_of(*ports: int, query: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"redis+sentinel://:{PASSWORD}@{hosts}/{MASTER}{query}"


def client_of(url: str) -> Redis:
    return Redis(url, timeout_seconds=5, breaker=CircuitBreaker(0))


def test_commands_reach_the_master_that_a_sentinel_names(
    master: RedisNode, sentinel: SentinelNode
) -> None:
    store = client_of(url_of(sentinel.port))

    assert store.execute(command("SET", "userapi:x", "1")) == [b"OK"]

    with master.client as server:
        assert server.get("userapi:x") == b"1"
    store.close()


def test_a_sentinel_that_does_not_reply_is_asked_last(
    master: RedisNode, sentinel: SentinelNode
) -> None:
    with proxy_to(sentinel.url) as silent:
        silent.black_hole()
        url = parse_sentinel_url(url_of(silent.port, sentinel.port))
        sentinels = Sentinels(url, timeout_seconds=0.2)

        found = [sentinels.discover_master(MASTER) for _ in range(5)]
        asked = silent.open_connections
        silent.pass_on()

    assert {port for _, port in found} == {master.port}
    assert asked == 1


def test_a_password_of_the_sentinels_is_sent_to_them_alone(
    master: RedisNode, sentinel: SentinelNode
) -> None:
    rules = ("resetpass", "off")
    with sentinel.client as server:
        server.execute_command(
            "ACL", "SETUSER", "watcher", "on", ">heron-of-sentinels-4", *SENTINEL_RULES
        )
        server.execute_command("ACL", "SETUSER", "default", *rules)
    url = url_of(sentinel.port, query="?sentinel_username=watcher")

    allowed = client_of(with_sentinel_password(url, "heron-of-sentinels-4"))
    wrong = client_of(with_sentinel_password(url, "heron-of-sentinels-5"))

    assert allowed.execute(command("PING")) == [b"PONG"]
    assert wrong.execute(command("PING")) is None
    allowed.close()


def test_without_a_sentinel_no_master_is_found(sentinel: SentinelNode) -> None:
    other_name = url_of(sentinel.port).replace(MASTER, "other")
    for url in (url_of(free_port(), free_port()), other_name):
        sentinels = Sentinels(parse_sentinel_url(url), timeout_seconds=1)

        with pytest.raises(SentinelsUnavailable):
            sentinels.discover_master("other")

        assert client_of(url).execute(command("PING")) is None


def name_as_master(sentinel: SentinelNode, node: RedisNode) -> None:
    with sentinel.client as server:
        server.execute_command("SENTINEL", "REMOVE", MASTER)
        server.execute_command("SENTINEL", "MONITOR", MASTER, "127.0.0.1", node.port, 1)
        server.execute_command("SENTINEL", "SET", MASTER, "auth-pass", PASSWORD)


def value_of(node: RedisNode, key: str) -> object:
    with node.client as server:
        return server.get(key)


@pytest.mark.thorough
def test_idle_connections_to_a_former_master_that_accepts_writes_end(
    tmp_path: Path, master: RedisNode, sentinel: SentinelNode
) -> None:
    store = client_of(url_of(sentinel.port))
    set_command = command("SET", "userapi:x", "1")
    with RedisNode(tmp_path / "promoted") as promoted:
        assert store.execute(set_command) == [b"OK"]
        name_as_master(sentinel, promoted)

        wait_until(
            lambda: (
                store.execute(set_command) == [b"OK"] and value_of(promoted, "userapi:x") == b"1"
            ),
            seconds=10,
        )

        store.close()


@pytest.mark.thorough
def test_a_former_master_that_still_accepts_writes_is_no_longer_used(
    tmp_path: Path, master: RedisNode, sentinel: SentinelNode
) -> None:
    """After an ordered failover the former master accepted writes for eight seconds."""
    store = client_of(url_of(sentinel.port))
    with RedisNode(tmp_path / "promoted") as promoted, ThreadPoolExecutor(1) as pool:
        assert store.execute(command("SET", "userapi:before", "1")) == [b"OK"]
        # In use during the change, and idle after it.
        waiting = pool.submit(store.execute, command("BLPOP", "userapi:queue", 3))
        wait_until(lambda: blocked_clients(master) == 1)
        name_as_master(sentinel, promoted)
        wait_until(
            lambda: (
                bool(store.execute(command("SET", "userapi:x", "1")))
                and value_of(promoted, "userapi:x") == b"1"
            ),
            seconds=10,
        )

        assert waiting.result() == [None]
        for _ in range(3):
            assert store.execute(command("INCRBY", "userapi:y", 1)) is not None

        assert value_of(promoted, "userapi:y") == b"3"
        assert value_of(master, "userapi:y") is None
        store.close()


def blocked_clients(node: RedisNode) -> int:
    with node.client as server:
        return int(server.info("clients")["blocked_clients"])


@pytest.mark.thorough
def test_the_console_health_and_doctor_use_the_sentinels(
    make_app: MakeApp, make_user: MakeUser, master: RedisNode, sentinel: SentinelNode
) -> None:
    app = make_app(
        REDIS_URL=url_of(sentinel.port), HEALTH_DETAILED_PUBLIC="true", CONSOLE_ENABLED="true"
    )
    robin = make_user("robin")
    reader = PageReader(app)
    reader.get("/sign-in")

    signed_in = reader.post("/sign-in", username="robin", password=robin.password)
    health = app.test_client().get("/api/v1/health/detailed").get_json()
    doctor = app.test_cli_runner().invoke(args=["doctor"]).output

    assert signed_in.status_code == 303
    with master.client as server:
        assert len(server.keys("browser:*")) == 1
    assert health["components"]["redis"]["status"] == "up"
    for text in ("has no replica", "a master that lost its replicas accepts writes"):
        assert text in doctor


def test_doctor_reports_sentinels_that_name_no_master(
    make_app: MakeApp, sentinel: SentinelNode
) -> None:
    app = make_app(REDIS_URL=url_of(sentinel.port).replace(MASTER, "other"))

    result = app.test_cli_runner().invoke(args=["doctor"])

    assert "no Sentinel names a master" in result.output
    assert "REDIS_SENTINEL_PASSWORD" in result.output
    assert (result.exit_code, PASSWORD in result.output) == (1, False)


def to_replica(server: redis.Redis) -> None:
    server.replicaof("127.0.0.1", free_port())


def to_stale_replica(server: redis.Redis) -> None:
    server.config_set("replica-serve-stale-data", "no")
    server.replicaof("127.0.0.1", free_port())


def to_isolated(server: redis.Redis) -> None:
    server.config_set("min-replicas-to-write", "1")


@pytest.mark.parametrize("demote", [to_replica, to_stale_replica, to_isolated])
def test_a_connection_to_a_former_master_ends(
    tmp_path: Path, master: RedisNode, demote: Callable[[redis.Redis], None]
) -> None:
    """The former master keeps its connections: it would reject writes on them forever."""
    with RedisNode(tmp_path / "promoted") as promoted, proxy_to(master.url) as proxy:
        store = client_of(url_through(proxy, master.url))
        set_command = command("SET", "userapi:x", "1")
        assert store.execute(set_command) == [b"OK"]
        with master.client as server:
            demote(server)
        # Leads new connections to the promoted server, and keeps the open one.
        proxy.lead_to(promoted.port)

        replies = store.execute(set_command)

        assert replies == [b"OK"]
        with promoted.client as server:
            assert server.get("userapi:x") == b"1"
        store.close()


def test_an_error_of_a_command_does_not_end_the_connection(master: RedisNode) -> None:
    store = client_of(master.url)
    with master.client as server:
        before = server.info("stats")["total_connections_received"]
        for _ in range(3):
            assert store.execute(command("NOSUCH")) is None
        assert store.execute(command("PING")) == [b"PONG"]
        after = server.info("stats")["total_connections_received"]

    assert after - before == 1
    store.close()


@pytest.mark.thorough
def test_sentinels_and_masters_with_the_certificate_of_another_machine_are_refused(
    tmp_path: Path,
) -> None:
    own = make_certificates(tmp_path / "own")
    other = make_certificates(tmp_path / "other", for_this_machine=False)
    both = tmp_path / "authorities.pem"
    both.write_bytes(own.authority.read_bytes() + other.authority.read_bytes())

    own, other = replace(own, authority=both), replace(other, authority=both)

    def reached(master_has: Certificates, sentinel_has: Certificates, name: str) -> object:
        with (
            RedisNode(tmp_path / f"master-{name}", certificates=master_has) as master,
            SentinelNode(tmp_path / f"sentinel-{name}", master, sentinel_has) as sentinel,
        ):
            url = url_of(sentinel.port, query=f"?ssl_ca_certs={both}")
            store = client_of(url.replace("redis+", "rediss+"))
            try:
                return store.execute(command("PING"))
            finally:
                store.close()

    assert reached(own, own, "both") == [b"PONG"]
    assert reached(own, other, "sentinel") is None
    assert reached(other, own, "master") is None


def test_an_invalidation_that_a_former_master_accepted_is_repeated(
    tmp_path: Path, master: RedisNode, sentinel: SentinelNode
) -> None:
    """After an ordered failover the former master accepts writes, and then loses them."""
    store = client_of(url_of(sentinel.port))
    tombstone = command("SET", "userapi:x", "E")
    with RedisNode(tmp_path / "promoted") as promoted:
        # The check of this second has found the former master.
        assert store.execute(command("GET", "userapi:x")) == [None]
        name_as_master(sentinel, promoted)

        assert store.execute_each([tombstone]) == []

        assert value_of(promoted, "userapi:x") == b"E"
        store.close()
