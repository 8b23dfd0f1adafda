"""Two workers share the relay: if the leader or its primary fails, the other one continues."""

import signal
import time
from collections import Counter

import pytest

from tests.cluster.conftest import Deploy
from tests.cluster.guarantees import hold
from tests.support.clusters.consumer import Consumer
from tests.support.clusters.load import Writes
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

TAKES_OVER_WITHIN_SECONDS = 6.0


def test_every_event_arrives_in_order_when_the_primary_hangs(
    postgresql: PostgresCluster,
    database_name: str,
    deploy: Deploy,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    old = postgresql.primary
    url = postgresql.url(database_name, [old, *postgresql.standbys])
    broker = {"RABBITMQ_URL": rabbitmq_url, "RABBITMQ_EXCHANGE": rabbitmq_exchange}
    deployed = deploy.service(url, **broker)
    for _ in range(2):
        deploy.worker(url, **broker)
    writes = Writes([deployed.base_url], deployed.token, prefix="hang")
    timeline = int(old.value("SELECT timeline_id FROM pg_control_checkpoint()"))

    with Consumer(rabbitmq_url, rabbitmq_exchange, "hang") as consumer:
        with writes.load():
            wait_until(lambda: len(consumer.received) >= 60, seconds=60)
            old.pause()
            promoted_at = postgresql.fail_over()
            wait_until(lambda: consumer.received_after(promoted_at + 1) >= 90, seconds=60)
        created = {attempt.subject for attempt in writes.record.acknowledged}
        wait_until(lambda: created <= consumer.created, seconds=60)

    query = "SELECT id::text FROM outbox_events"
    written = {str(row[0]) for row in postgresql.primary.execute(query, database_name)}
    phantoms = {event["id"] for _, event in consumer.received} - written
    taken_over_after = consumer.first_after(promoted_at) - promoted_at
    hold("G10", taken_over_after, bound=TAKES_OVER_WITHIN_SECONDS)
    assert phantoms == set()
    assert consumer.out_of_order() == []
    sequences = Counter(event["sequence"] for event in consumer.first_deliveries())
    assert [number for number, times in sequences.items() if times > 1] == []
    # The promoted server names its history at once, and not at its next checkpoint.
    received = [(at > promoted_at, int(event["history"])) for at, event in consumer.received]
    assert set(received) == {(False, timeline), (True, timeline + 1)}


def test_the_other_worker_takes_over_from_a_leader_that_dies(
    postgresql: PostgresCluster,
    database_name: str,
    deploy: Deploy,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    url = postgresql.url(database_name, [postgresql.primary])
    broker = {"RABBITMQ_URL": rabbitmq_url, "RABBITMQ_EXCHANGE": rabbitmq_exchange}
    deployed = deploy.service(url, **broker)
    workers = [deploy.worker(url, **broker) for _ in range(2)]
    writes = Writes([deployed.base_url], deployed.token, prefix="die")

    with Consumer(rabbitmq_url, rabbitmq_exchange, "die") as consumer:
        with writes.load():
            wait_until(lambda: len(consumer.received) >= 60, seconds=60)
            leaders = [worker for worker in workers if worker.has_logged("relay.took_over")]
            assert len(leaders) == 1
            leaders[0].end(signal.SIGKILL)
            died_at = time.monotonic()
            wait_until(lambda: consumer.received_after(died_at + 1) >= 60, seconds=60)
        created = {attempt.subject for attempt in writes.record.acknowledged}
        wait_until(lambda: created <= consumer.created, seconds=60)

    hold("G10", consumer.longest_gap(died_at - 1), bound=TAKES_OVER_WITHIN_SECONDS)
    assert consumer.out_of_order() == []
