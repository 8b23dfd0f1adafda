"""The clusters behave as the tests of the service expect."""

from itertools import count
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError

from tests.support.clusters.certificates import make_certificates
from tests.support.clusters.load import Attempt, Load, Record
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.clusters.rabbitmq import RabbitmqCluster
from tests.support.clusters.redis_cluster import RedisShards, slots_of
from tests.support.clusters.redis_nodes import RedisNode, RedisPair, client_of
from tests.support.clusters.sentinel import RedisSentinels
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster


def write(cluster: PostgresCluster, number: int) -> None:
    cluster.primary.execute("CREATE TABLE IF NOT EXISTS probe (number int)")
    cluster.primary.execute(f"INSERT INTO probe VALUES ({number})")


def numbers(cluster: PostgresCluster) -> list[int]:
    return [row[0] for row in cluster.primary.execute("SELECT number FROM probe ORDER BY 1")]


def test_postgresql_keeps_synchronous_writes_through_two_failovers(
    postgresql: PostgresCluster,
) -> None:
    write(postgresql, 1)
    old = postgresql.primary
    old.crash()
    postgresql.fail_over()
    write(postgresql, 2)
    postgresql.repair()
    postgresql.primary.pause()
    postgresql.fail_over()
    write(postgresql, 3)

    assert numbers(postgresql) == [1, 2, 3]
    assert postgresql.primary.value("SELECT pg_is_in_recovery()") is False
    postgresql.primary.execute("DROP TABLE probe")


def test_postgresql_acknowledges_nothing_while_replication_stalls(
    postgresql: PostgresCluster,
) -> None:
    write(postgresql, 1)
    postgresql.stall_replication()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with Load(lambda number: write(postgresql, number), per_second=1, threads=1):
        wait_until(lambda: postgresql.primary.value(waiting) == 1)
        postgresql.resume_replication()
        wait_until(lambda: postgresql.primary.value(waiting) == 0)

    postgresql.primary.execute("DROP TABLE probe")


def test_an_asynchronous_standby_that_is_behind_loses_writes(postgresql: PostgresCluster) -> None:
    write(postgresql, 1)
    postgresql.replicate(synchronously=False)
    postgresql.stall_replication()
    write(postgresql, 2)
    postgresql.primary.crash()
    postgresql.fail_over()

    assert numbers(postgresql) == [1]
    postgresql.primary.execute("DROP TABLE probe")


def test_sentinel_promotes_the_replica_of_a_killed_master(sentinels: RedisSentinels) -> None:
    old = sentinels.master
    with old.client as client:
        client.set("key", "value")
        client.wait(1, 2000)
    old.crash()
    sentinels.wait_until_promoted(old)

    with sentinels.master.client as client:
        assert client.get("key") == b"value"
    sentinels.repair()
    assert old.role() == "slave"


def test_sentinel_fails_over_on_command(sentinels: RedisSentinels) -> None:
    old = sentinels.master
    sentinels.fail_over()

    assert old.is_running
    wait_until(lambda: old.role() == "slave", seconds=20)


def test_redis_serves_tls_with_an_authority_of_its_own(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    with RedisNode(tmp_path / "node", certificates=certificates) as node:
        with node.client as client:
            assert client.ping()
        with (
            client_of(f"rediss://127.0.0.1:{node.port}/0") as stranger,
            pytest.raises(redis.ConnectionError, match="certificate verify failed"),
        ):
            stranger.ping()


def test_a_replica_that_is_cut_off_keeps_what_it_had(tmp_path: Path) -> None:
    with RedisPair(tmp_path) as pair:
        with pair.master.client as client:
            client.set("key", "old")
            pair.wait_until_in_step()
            pair.cut_replica_off()
            client.set("key", "new")
        pair.master.crash()
        pair.promote_replica()
        with pair.replica.client as client:
            assert client.get("key") == b"old"


def test_a_redis_cluster_moves_slots_and_survives_a_killed_shard(shards: RedisShards) -> None:
    source, target, _ = shards.masters
    slot = slots_of(0)[0]
    shards.begin_move(slot, source, target)
    with source.client as client, pytest.raises(AskError):
        client.execute_command("GET", key_in(slot))
    shards.move_keys(slot, source, target)
    shards.end_move(slot, source, target)
    with source.client as client, pytest.raises(MovedError):
        client.execute_command("GET", key_in(slot))

    shards.masters[2].crash()
    shards.wait_until_promoted(shards.replicas[2])


def key_in(slot: int) -> str:
    """Return a key of this slot."""
    keys = (f"key{number}" for number in count())
    return next(key for key in keys if int(key_slot(key.encode())) == slot)


def test_rabbitmq_forms_one_cluster_and_continues_without_a_node(rabbitmq: RabbitmqCluster) -> None:
    assert len(rabbitmq.running_members()) == 3
    rabbitmq.nodes[0].crash()
    wait_until(lambda: len(rabbitmq.running_members()) == 2, seconds=30)


def test_a_record_contains_what_succeeded_and_failed_after_a_moment() -> None:
    record = Record()
    record.add(Attempt(began_at=1, ended_at=2, status=201, subject="a"))
    record.add(Attempt(began_at=3, ended_at=5, status=0))
    record.add(Attempt(began_at=4, ended_at=7, status=200, subject="b"))

    assert [attempt.subject for attempt in record.acknowledged] == ["a", "b"]
    assert record.succeeded_after(3) == 1
    assert [attempt.status for attempt in record.failed_after(2)] == [0]
    assert record.seconds_until_success(3) == 4
    with pytest.raises(AssertionError, match="nothing succeeded"):
        record.seconds_until_success(8)


def test_a_load_passes_on_what_went_wrong_in_a_step() -> None:
    def step(number: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Load(step, per_second=100, threads=2) as load:
        wait_until(lambda: load.has_failed)
