"""A Redis Cluster: slots move, and a server that fails does not affect the keys of the others."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis
from flask import Flask
from redis.crc import key_slot

from tests.support.client import JsonClient
from tests.support.clusters.certificates import make_certificates
from tests.support.clusters.redis_cluster import ClusterNode, RedisShards
from tests.support.clusters.redis_nodes import PASSWORD
from tests.support.deployments import patient_redis
from tests.support.pages import PageReader
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.servers import new_run_directory
from tests.support.users import MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.key_tags import TAGS, tag_of_user
from userapi.infrastructure.redis_cluster import RedisCluster
from userapi.infrastructure.redis_commands import Script, command
from userapi.sessions.cache import RedisLiveSessions
from userapi.sessions.status import LiveSession, SessionOfUser

pytestmark = pytest.mark.thorough

MakeApp = Callable[..., Flask]
PAIR = Script("return redis.call('INCRBY', KEYS[1], 1) + redis.call('INCRBY', KEYS[2], 1)")
ACL = (
    "~userapi:* ~browser:* resetchannels +eval +evalsha +get +set +setex +del +mget +incrby +pttl"
    " +pexpire +time +ping +info +exists +expire +cluster|slots +asking"
)


@pytest.fixture(scope="module")
def three_masters() -> Iterator[RedisShards]:
    with RedisShards(new_run_directory(), with_replicas=False) as shards:
        yield shards


@pytest.fixture
def shards(three_masters: RedisShards) -> Iterator[RedisShards]:
    yield three_masters
    for node in three_masters.nodes:
        with node.client as server:
            server.config_set("min-replicas-to-write", "0")
            server.flushall()


@pytest.fixture
def store(shards: RedisShards) -> Iterator[RedisCluster]:
    store = RedisCluster(shards.url(), timeout_seconds=5, open_seconds=0.1)
    yield store
    store.close()


def keys_of(tag: str) -> tuple[str, str]:
    return f"userapi:{tag}:a", f"userapi:{tag}:b"


def slot_of(key: str) -> int:
    return int(key_slot(key.encode()))


def others_of(shards: RedisShards, node: ClusterNode) -> list[ClusterNode]:
    return [each for each in shards.masters if each is not node]


# Where commands go


def test_the_tags_spread_over_any_number_of_servers() -> None:
    for servers, least, most in ((3, 85, 86), (6, 42, 43), (12, 21, 22), (24, 10, 11)):
        counts = [0] * servers
        for tag in TAGS:
            counts[slot_of(f"userapi:live:{tag}:roles") * servers // 16384] += 1
        assert (min(counts), max(counts)) == (least, most)


def test_all_keys_of_a_user_are_in_one_slot(clock: ManualClock) -> None:
    user_id = UUID("01900000-0000-7000-8000-0000000000a7")
    nowhere = RedisCluster(f"redis+cluster://127.0.0.1:{free_port()}")
    live = RedisLiveSessions(
        clock,
        copy_seconds=10,
        lookups=nowhere,
        invalidations=nowhere,
        database=None,  # type: ignore[arg-type]  # is not read
        shared_with_previous_release=False,
    )

    lookup = live.lookup(UUID(int=1), user_id=user_id, session_version=1)

    assert lookup is not None
    keys = [str(word) for word in lookup.words if str(word).startswith("userapi:")]
    assert len(keys) == 3
    assert {slot_of(key) for key in keys} == {slot_of(tag_of_user(user_id))}


def test_one_node_of_the_url_is_enough(shards: RedisShards) -> None:
    url = f"redis+cluster://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{shards.nodes[1].port}"
    store = RedisCluster(url, timeout_seconds=5)

    for tag in TAGS[::50]:
        assert store.execute(command("SET", f"userapi:{tag}:x", "1")) == [b"OK"]
    store.close()


def test_without_a_node_nothing_is_executed() -> None:
    store = RedisCluster(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    lookup = command("GET", "userapi:x")

    assert store.execute(lookup) is None
    assert store.execute_each([lookup]) == [lookup]
    assert store.is_unavailable(TAGS[0])


def test_a_server_without_cluster_mode_is_unavailable(redis_url: str) -> None:
    address = redis_url.rpartition("/")[0].removeprefix("redis://")
    store = RedisCluster(f"redis+cluster://{address}", timeout_seconds=5)

    assert store.execute(command("GET", "userapi:x")) is None


def test_a_user_with_the_documented_rules_is_enough(shards: RedisShards) -> None:
    for node in shards.nodes:
        node.make_user("userapi", "acl-password-6yHn", ACL)
    store = RedisCluster(shards.url("userapi:acl-password-6yHn"), timeout_seconds=5)

    assert [store.execute(PAIR.on(*keys_of(tag))) for tag in TAGS[:3]] == [[2]] * 3
    store.close()


def test_tls_with_a_private_authority(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    query = f"?ssl_ca_certs={certificates.authority}"
    with RedisShards(
        tmp_path / "redis", with_replicas=False, certificates=certificates
    ) as encrypted:
        trusting = RedisCluster(encrypted.url(query=query), timeout_seconds=5)
        doubting = RedisCluster(encrypted.url(), timeout_seconds=5)

        replies = [trusting.execute(PAIR.on(*keys_of(tag))) for tag in TAGS[::90]]

        assert replies == [[2]] * 3
        assert doubting.execute(command("GET", "userapi:x")) is None
        trusting.close()


# Slots that move


def test_commands_follow_a_slot_to_its_new_server(shards: RedisShards, store: RedisCluster) -> None:
    first, second = keys_of(TAGS[3])
    assert store.execute(PAIR.on(first, second)) == [2]
    source = shards.owner_of(first)
    target = others_of(shards, source)[0]
    shards.begin_move(slot_of(first), source, target)
    shards.move_keys(slot_of(first), source, target)
    shards.end_move(slot_of(first), source, target)
    try:
        assert store.execute(PAIR.on(first, second), command("GET", first)) == [4, b"2"]
        assert not store.is_unavailable(TAGS[3])
        with target.client as server:
            assert server.get(first) == b"2"
    finally:
        shards.begin_move(slot_of(first), target, source)
        shards.move_keys(slot_of(first), target, source)
        shards.end_move(slot_of(first), target, source)


def test_an_open_slot_is_served_by_both_servers(shards: RedisShards, store: RedisCluster) -> None:
    moved, missing = keys_of(TAGS[4])
    assert store.execute(PAIR.on(moved, missing)) == [2]
    source = shards.owner_of(moved)
    target = others_of(shards, source)[0]
    shards.begin_move(slot_of(moved), source, target)
    try:
        with source.client as server:
            server.delete(missing)
        shards.move_keys(slot_of(moved), source, target)

        # ASK: the key is on the target. A script that its server does not know is sent as text.
        assert store.execute(command("GET", moved)) == [b"1"]
        assert store.execute_each([command("SET", moved, "7")]) == []
        assert store.execute(command("GET", moved)) == [b"7"]
        # TRYAGAIN: one of the two keys is missing there. Only this call has no reply.
        assert store.execute(PAIR.on(moved, missing)) is None
        assert store.execute(command("SET", missing, "1")) == [b"OK"]
        assert store.execute(PAIR.on(moved, missing)) == [10]
        assert not store.is_unavailable(TAGS[4])
    finally:
        shards.move_keys(slot_of(moved), source, target)
        shards.end_move(slot_of(moved), source, target)


def test_a_slot_without_a_server_leaves_the_other_servers_in_use(
    shards: RedisShards, store: RedisCluster
) -> None:
    """CLUSTERDOWN: no node serves the slot."""
    lost, _ = keys_of(TAGS[5])
    owner = shards.owner_of(lost)
    other = next(tag for tag in TAGS if shards.owner_of(keys_of(tag)[0]) is not owner)
    assert store.execute(command("SET", lost, "1")) == [b"OK"]
    for node in shards.nodes:
        node.call("CLUSTER", "DELSLOTS", slot_of(lost))
    try:
        assert store.execute(command("GET", lost)) is None
        assert store.execute(command("SET", keys_of(other)[0], "2")) == [b"OK"]
    finally:
        owner.call("CLUSTER", "ADDSLOTS", slot_of(lost))
        for node in shards.nodes:
            wait_until(node.is_ok, seconds=30)
    wait_until(lambda: store.execute(command("GET", lost)) is not None)


# A server that fails


def test_a_server_that_hangs_concerns_its_own_keys(shards: RedisShards) -> None:
    store = RedisCluster(shards.url(), timeout_seconds=0.3, open_seconds=0.1)
    lookups = {tag: command("GET", f"userapi:{tag}:x") for tag in TAGS}
    wait_until(lambda: store.execute_each(list(lookups.values())) == [])
    paused = shards.masters[0]
    its_own = [lookups[tag] for tag in TAGS if shards.owner_of(f"userapi:{tag}:x") is paused]

    paused.pause()
    failed = store.execute_each(list(lookups.values()))
    others = [each for each in lookups.values() if each not in its_own]
    replies = [store.execute(each) for each in others]
    unavailable = {store.is_unavailable(tag) for tag in TAGS if lookups[tag] in its_own}
    paused.resume()

    assert sorted(map(str, failed)) == sorted(map(str, its_own))
    assert replies == [[None]] * len(others)
    assert unavailable == {True}
    wait_until(lambda: store.execute_each(list(lookups.values())) == [])
    store.close()


class Database:
    """Knows no session."""

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        return None


def test_pending_invalidations_leave_copies_of_other_servers_valid(
    shards: RedisShards, clock: ManualClock
) -> None:
    """While one server of three was away, every session was read from the database."""
    store = RedisCluster(shards.url(), timeout_seconds=0.3, open_seconds=0.1)
    live = RedisLiveSessions(
        clock,
        copy_seconds=300,
        lookups=store,
        invalidations=RedisCluster(shards.url(), timeout_seconds=0.3, open_seconds=0.1),
        database=Database(),  # type: ignore[arg-type]  # knows no session
        shared_with_previous_release=False,
    )
    users = [UUID(int=number) for number in range(256)]
    session = UUID(int=1)

    def trusted() -> set[UUID]:
        return {
            user
            for user in users
            if live.lookup(session, user_id=user, session_version=1) is not None
        }

    wait_until(lambda: trusted() == set(users))
    paused = shards.masters[0]
    its_own = {user for user in users if shards.owner_of(tag_of_user(user)) is paused}

    paused.pause()
    live.sessions_ended([SessionOfUser(session, user) for user in users])
    wait_until(lambda: trusted() == set(users) - its_own)
    paused.resume()

    wait_until(lambda: trusted() == set(users))
    tombstones = 0
    for node in shards.masters:
        with node.client as server:
            tombstones += len(server.keys("userapi:live:*:s:*"))
    assert tombstones == len(users)


# What operators and the console see


def test_health_and_doctor_ask_every_server(make_app: MakeApp, shards: RedisShards) -> None:
    app = make_app(REDIS_URL=shards.url(), HEALTH_DETAILED_PUBLIC="true")

    def status() -> str:
        report = app.test_client().get("/api/v1/health/detailed").get_json()
        return str(report["components"]["redis"]["status"])

    before, doctor = status(), app.test_cli_runner().invoke(args=["doctor"]).output
    with shards.masters[2].client as server:
        server.config_set("min-replicas-to-write", "1")
    after, report = status(), app.test_cli_runner().invoke(args=["doctor"])

    assert (before, after) == ("up", "down")
    for node in shards.masters:
        assert f"127.0.0.1:{node.port}: answers" in doctor
        assert f"127.0.0.1:{node.port}: the master has no replica to fail over to" in doctor
    assert f"127.0.0.1:{shards.masters[2].port}: has too few replicas" in report.output
    assert (report.exit_code, PASSWORD in report.output) == (1, False)


def test_doctor_reports_slots_without_a_server(make_app: MakeApp, shards: RedisShards) -> None:
    slot = slot_of("userapi:nobody")
    owner = shards.owner_of("userapi:nobody")
    for node in shards.nodes:
        node.call("CLUSTER", "DELSLOTS", slot)
    try:
        app = make_app(REDIS_URL=shards.url(), HEALTH_DETAILED_PUBLIC="true")
        report = app.test_client().get("/api/v1/health/detailed").get_json()
        output = app.test_cli_runner().invoke(args=["doctor"]).output
    finally:
        owner.call("CLUSTER", "ADDSLOTS", slot)
        for node in shards.nodes:
            wait_until(node.is_ok, seconds=30)

    assert report["components"]["redis"]["status"] == "down"
    assert "the Cluster is incomplete: 1 slots have no server." in output


def test_doctor_reports_nodes_that_do_not_reply(make_app: MakeApp) -> None:
    app = make_app(REDIS_URL=f"redis+cluster://127.0.0.1:{free_port()}")

    assert (
        "does not answer (ConnectionError)" in app.test_cli_runner().invoke(args=["doctor"]).output
    )


def test_doctor_reports_a_wrong_password(make_app: MakeApp, shards: RedisShards) -> None:
    app = make_app(REDIS_URL=shards.url(":wrong"))

    assert "rejects the password" in app.test_cli_runner().invoke(args=["doctor"]).output


def test_the_console_stores_its_sessions_on_every_server(
    make_app: MakeApp, make_user: MakeUser, shards: RedisShards
) -> None:
    app = make_app(REDIS_URL=shards.url(), CONSOLE_ENABLED="true", RATE_LIMIT_ENABLED="false")
    robin = make_user("robin")
    readers = [PageReader(app) for _ in range(12)]
    for reader in readers:
        reader.get("/sign-in")
        assert reader.post("/sign-in", username="robin", password=robin.password).status_code == 303

    stored = {}
    for node in shards.masters:
        with node.client as server:
            stored[node.port] = len(server.keys("browser:*"))
    assert sum(stored.values()) >= 10
    assert [reader.get("/profile").status_code for reader in readers[-5:]] == [200] * 5
    readers[-1].post("/sign-out")
    assert readers[-1].get("/profile").status_code == 303


def test_named_rate_limits_are_counted_for_all_processes(
    make_app: MakeApp, shards: RedisShards
) -> None:
    limit = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_PASSWORD_STRENGTH": "3/hour"}
    with patient_redis():
        apps = [make_app(REDIS_URL=shards.url(), **limit) for _ in range(2)]
    clients = [JsonClient(app) for app in apps] * 2

    statuses = [
        client.post("/api/v1/auth/password-strength", json={"password": "x"}).status_code
        for client in clients
    ]

    assert statuses == [200, 200, 200, 429]


def test_a_redis_without_cluster_mode_is_reported(make_app: MakeApp, redis_url: str) -> None:
    address = redis_url.rpartition("/")[0].removeprefix("redis://")
    app = make_app(REDIS_URL=f"redis+cluster://{address}")

    output = app.test_cli_runner().invoke(args=["doctor"]).output

    assert "no node names the servers of the Cluster" in output
    assert redis.Redis.from_url(redis_url).ping()
