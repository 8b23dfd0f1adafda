"""RabbitMQ blocks publishers because a node runs out of memory."""

import time

import pytest

from tests.cluster.conftest import Deploy, Deployed
from tests.support.clusters.consumer import Consumer
from tests.support.clusters.load import Writes
from tests.support.clusters.rabbitmq import RabbitmqCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

EXCHANGE = "user_events"


@pytest.fixture
def deployed(rabbitmq: RabbitmqCluster, single_database: str, deploy: Deploy) -> Deployed:
    """Return a service and a worker that publish to the second node."""
    broker = {"RABBITMQ_URL": rabbitmq.nodes[1].url}
    deployed = deploy.service(single_database, **broker)
    deploy.worker(single_database, **broker)
    return deployed


def test_events_wait_while_a_memory_alarm_blocks_publishers(
    rabbitmq: RabbitmqCluster, deployed: Deployed
) -> None:
    writes = Writes([deployed.base_url], deployed.token, prefix="blocked")
    with Consumer(rabbitmq.nodes[2].url, EXCHANGE, "blocked") as consumer:
        with writes.load(per_second=15):
            wait_until(lambda: len(consumer.received) >= 30, seconds=60)
            rabbitmq.raise_memory_alarm()
            try:
                blocked_at = time.monotonic()
                wait_until(lambda: writes.record.succeeded_after(blocked_at) >= 45, seconds=60)
                # Or nothing was blocked, and the test would prove nothing.
                assert len(writes.record.acknowledged) - len(consumer.created) >= 30
            finally:
                rabbitmq.clear_memory_alarm()
        created = {attempt.subject for attempt in writes.record.acknowledged}
        wait_until(lambda: created <= consumer.created, seconds=60)

    assert writes.record.failed_after(0) == []
    assert consumer.out_of_order() == []
