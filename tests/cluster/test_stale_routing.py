"""For a while the service is routed to a read-only server, as by stale DNS or a pooler."""

import time

import pytest

from tests.cluster.conftest import Deploy
from tests.cluster.guarantees import contention, hold
from tests.support.clusters.load import Writes, summary
from tests.support.clusters.postgresql import PASSWORD, PostgresCluster
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.cluster

POOL_SIZE = 4
WRITES_WITHIN_SECONDS = 1.0


def test_writes_succeed_within_a_second_after_the_routing_is_right_again(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    """Pooled connections to the standby stayed in use: every write failed for half an hour."""
    primary, standby = postgresql.primary, postgresql.standbys[0]
    with FaultProxy("127.0.0.1", primary.port) as route:
        url = f"postgresql://postgres:{PASSWORD}@{route.host}:{route.port}/{database_name}"
        deployed = deploy.service(url, DATABASE_POOL_SIZE=str(POOL_SIZE))
        writes = Writes([deployed.base_url], deployed.token)

        with writes.load():
            wait_until(lambda: len(writes.record.acknowledged) >= 30, seconds=60)
            route.lead_to(standby.port)
            route.refuse()
            route.pass_on()
            wait_until(lambda: refused(writes) >= 60, seconds=60)
            route.lead_to(primary.port)
            right_at = time.monotonic()
            wait_until(lambda: writes.record.succeeded_after(right_at + 1) >= 60, seconds=60)

    record = writes.record
    failed = record.failed_after(right_at)
    hold("G3", record.seconds_until_success(right_at), bound=WRITES_WITHIN_SECONDS)
    assert len(failed) <= POOL_SIZE, summary(failed)
    assert all(attempt.status == 503 for attempt in failed), summary(failed)
    late = record.failed_after(right_at + WRITES_WITHIN_SECONDS * contention())
    assert late == [], summary(late)


def refused(writes: Writes) -> int:
    """Return how many writes were answered 503."""
    return sum(attempt.status == 503 for attempt in writes.record.attempts)
