"""A RabbitMQ node is killed while users are created."""

import time

import pytest

from tests.cluster.conftest import Deploy, Deployed
from tests.cluster.guarantees import hold
from tests.support.clusters.consumer import Consumer
from tests.support.clusters.load import Writes
from tests.support.clusters.rabbitmq import RabbitmqCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

EXCHANGE = "user_events"
FLOW_WITHIN_SECONDS = 8.0


@pytest.fixture
def deployed(rabbitmq: RabbitmqCluster, single_database: str, deploy: Deploy) -> Deployed:
    """Return a service and a worker that know all three nodes."""
    deployed = deploy.service(single_database, RABBITMQ_URL=rabbitmq.url())
    deploy.worker(single_database, RABBITMQ_URL=rabbitmq.url())
    return deployed


def test_events_flow_again_soon_after_the_first_node_was_killed(
    rabbitmq: RabbitmqCluster, deployed: Deployed
) -> None:
    """The second node of the URL was accepted and never connected to."""
    writes = Writes([deployed.base_url], deployed.token, prefix="killed")
    with Consumer(rabbitmq.nodes[2].url, EXCHANGE, "killed") as consumer:
        with writes.load():
            wait_until(lambda: len(consumer.received) >= 60, seconds=60)
            rabbitmq.nodes[0].crash()
            killed_at = time.monotonic()
            wait_until(lambda: consumer.received_after(killed_at + 1) >= 60, seconds=60)
        created = {attempt.subject for attempt in writes.record.acknowledged}
        wait_until(lambda: created <= consumer.created, seconds=60)

    hold("G9", consumer.longest_gap(killed_at - 1), bound=FLOW_WITHIN_SECONDS)
    assert consumer.out_of_order() == []
    report = deployed.admin.client.once("GET", "/api/v1/health/detailed").body
    assert report["components"]["rabbitmq"]["status"] == "up"
