"""The primary hangs: its connections stay open, it accepts new ones and answers nothing."""

import pytest

from tests.cluster.conftest import Deploy, lost
from tests.cluster.guarantees import contention, hold
from tests.support.clusters.load import Checks, Writes, summary
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

WRITES_WITHIN_SECONDS = 4.0


def test_writes_continue_within_four_seconds_and_nothing_acknowledged_is_lost(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    old = postgresql.primary
    deployed = deploy.service(postgresql.url(database_name, [old, *postgresql.standbys]))
    writes = Writes([deployed.base_url], deployed.token)
    checks = Checks([deployed.base_url], [deployed.token], "/api/v1/health/live")

    with writes.load(), checks.load(per_second=20, threads=2):
        wait_until(lambda: len(writes.record.acknowledged) >= 60, seconds=60)
        old.pause()
        promoted_at = postgresql.fail_over()
        settled_at = promoted_at + WRITES_WITHIN_SECONDS * contention()
        wait_until(lambda: writes.record.succeeded_after(settled_at) >= 60, seconds=60)

    record = writes.record
    hold("G2", record.seconds_until_success(promoted_at), bound=WRITES_WITHIN_SECONDS)
    failed = record.failed_after(settled_at)
    assert failed == [], summary(failed)
    ids = {attempt.subject for attempt in record.acknowledged}
    missing = lost(postgresql.primary, database_name, ids)
    hold("G4", sum(missing.values()), bound=0)
    assert checks.record.failed_after(0) == []
