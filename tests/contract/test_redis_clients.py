"""What every client of Redis guarantees: of a server, of a Sentinel's master and of a Cluster."""

from collections.abc import Iterator

import pytest

from tests.support.clusters.redis_nodes import RedisNode
from tests.support.clusters.topologies import Kind, Topology
from tests.support.polling import wait_until
from userapi.infrastructure.key_tags import TAGS
from userapi.infrastructure.redis_commands import SERVER_ID, RedisClient, Script, command
from userapi.infrastructure.redis_topologies import redis_client

TAG = TAGS[7]
PATIENT_SECONDS = 5.0
COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1]) + redis.call('INCRBY', KEYS[2], 1)")
SERVED_BY = Script("return ARGV[1]")

pytestmark = pytest.mark.parametrize("topology", Kind, indirect=True)


@pytest.fixture
def client(topology: Topology) -> Iterator[RedisClient]:
    client = redis_client(topology.url, timeout_seconds=PATIENT_SECONDS, open_seconds=0.1)
    yield client
    client.close()


def test_each_command_has_its_reply(client: RedisClient) -> None:
    key = f"userapi:{TAG}:a"

    replies = client.execute(
        command("SET", key, "1"), command("INCR", key), command("GET", f"userapi:{TAG}:b")
    )

    assert replies == [b"OK", 2, None]


def test_a_script_uses_several_keys_of_one_tag(client: RedisClient) -> None:
    keys = (f"userapi:{TAG}:a", f"userapi:{TAG}:b")

    replies = client.execute(COUNT.on(*keys, arguments=(5,)), COUNT.on(*keys, arguments=(1,)))

    assert replies == [6, 8]


def test_a_script_that_a_server_has_forgotten_is_sent_again(
    client: RedisClient, topology: Topology
) -> None:
    keys = (f"userapi:{TAG}:a", f"userapi:{TAG}:b")
    client.execute(COUNT.on(*keys, arguments=(5,)))
    topology.forget_scripts()

    assert client.execute(command("GET", keys[0]), COUNT.on(*keys, arguments=(1,))) == [b"5", 8]


def test_a_script_receives_the_id_of_the_server_that_runs_it(
    client: RedisClient, topology: Topology
) -> None:
    ids = set()
    for server in topology.servers:
        with server.client as direct:
            ids.add(direct.info("server")["run_id"][:8].encode())

    received = set()
    for tag in TAGS:
        replies = client.execute(SERVED_BY.on(f"userapi:{tag}:x", arguments=(SERVER_ID,)))
        assert replies is not None
        received.add(replies[0])

    assert received == ids


def test_commands_of_all_tags_are_executed(client: RedisClient, topology: Topology) -> None:
    commands = [command("SET", f"userapi:{tag}:all", "1", "PX", 60_000) for tag in TAGS]

    assert client.execute_each(commands) == []

    assert len(topology.values("userapi:*:all")) == len(TAGS)


def test_commands_of_all_tags_need_one_round_trip_per_server(
    client: RedisClient, topology: Topology
) -> None:
    commands = [command("SET", f"userapi:{tag}:all", "1") for tag in TAGS]
    client.execute_each(commands)
    before = reads_of(topology)

    client.execute_each(commands)

    # At least 80 of the commands go to each server.
    assert reads_of(topology) - before < 20 * len(topology.servers)


def reads_of(topology: Topology) -> int:
    total = 0
    for server in topology.servers:
        with server.client as direct:
            total += int(direct.info("stats")["total_reads_processed"])
    return total


def test_a_rejected_command_has_no_reply_and_the_next_one_has(client: RedisClient) -> None:
    key = f"userapi:{TAG}:text"
    client.execute(command("SET", key, "text"))

    assert client.execute(command("INCR", key)) is None

    wait_until(lambda: client.execute(command("GET", key)) == [b"text"])


def test_a_server_that_hangs_is_unavailable_until_it_replies(
    client: RedisClient, topology: Topology
) -> None:
    key = f"userapi:{TAG}:a"
    lookup = command("GET", key)
    quick = redis_client(topology.url, timeout_seconds=0.2, open_seconds=0.1)
    wait_until(lambda: quick.execute(command("SET", key, "1")) == [b"OK"])
    owner = next(server for server in topology.servers if has(server, key))
    assert not quick.reconnected_within(60, TAG)

    owner.pause()
    meanwhile = quick.execute(lookup)
    was_unavailable = quick.is_unavailable(TAG)
    unsent = quick.execute_each([lookup])
    owner.resume()

    assert (meanwhile, was_unavailable, unsent) == (None, True, [lookup])
    wait_until(lambda: quick.execute(lookup) == [b"1"])
    assert not quick.is_unavailable(TAG)
    assert quick.reconnected_within(60, TAG)
    quick.close()


def has(server: RedisNode, key: str) -> bool:
    with server.client as direct:
        return key.encode() in direct.keys("*")
