"""Readiness while servers of the database URL hang: connections are accepted and not answered."""

import time
import urllib.error
import urllib.request

import pytest

from tests.cluster.conftest import Deploy
from tests.cluster.guarantees import contention, hold
from tests.support.clusters.load import Writes
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

READY_WITHIN_SECONDS = 1.0
READY = "/api/v1/health/ready"


def test_readiness_is_checked_within_a_second_after_the_first_time(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    """Each check used to open a connection of its own, past the server that hangs: 2 s each."""
    old = postgresql.primary
    deployed = deploy.service(postgresql.url(database_name, [old, *postgresql.standbys]))
    assert readiness(deployed.base_url)[0] == 200

    old.pause()
    postgresql.fail_over()
    wait_until(lambda: readiness(deployed.base_url)[0] == 200, seconds=30)
    results = [readiness(deployed.base_url) for _ in range(5)]

    assert [status for status, _ in results] == [200] * 5
    hold("G2", max(seconds for _, seconds in results), bound=READY_WITHIN_SECONDS)


def test_two_hosts_that_hang_delay_neither_writes_nor_readiness_after_the_first_time(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    first = postgresql.standbys[0]
    deployed = deploy.service(postgresql.url(database_name))
    hosts = [first, first, postgresql.primary]
    first.pause()
    behind = deploy.process(postgresql.url(database_name, hosts))
    writes = Writes([behind.base_url], deployed.token)
    began_at = time.monotonic()

    # Each host that hangs may cost 2 s, once for the process.
    with writes.load(per_second=10, threads=4):
        wait_until(lambda: writes.record.succeeded_after(began_at) >= 40, seconds=60)
    wait_until(lambda: readiness(behind.base_url)[0] == 200, seconds=30)
    results = [readiness(behind.base_url) for _ in range(3)]

    assert writes.record.failed_after(began_at + 6 * contention()) == []
    assert [status for status, _ in results] == [200] * 3
    hold("G2", max(seconds for _, seconds in results), bound=READY_WITHIN_SECONDS)


def readiness(base_url: str) -> tuple[int, float]:
    """Return the status of the readiness check and how long it took."""
    began_at = time.monotonic()
    try:
        with urllib.request.urlopen(base_url + READY, timeout=10) as answer:
            status = int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            status = exc.code
    return status, time.monotonic() - began_at
