"""The primary is killed with SIGKILL and a synchronous standby is promoted."""

import pytest

from tests.cluster.conftest import Deploy, lost
from tests.cluster.guarantees import contention, hold
from tests.support.clusters.load import Refreshes, Writes, summary
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

WRITES_WITHIN_SECONDS = 1.0


def test_writes_continue_within_a_second_and_nothing_acknowledged_is_lost(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    old = postgresql.primary
    deployed = deploy.service(postgresql.url(database_name, [old, *postgresql.standbys]))
    writes = Writes([deployed.base_url], deployed.token)
    refreshes = Refreshes(deployed.log_in(8))

    with writes.load(), refreshes.load():
        wait_until(lambda: len(writes.record.acknowledged) >= 60, seconds=60)
        old.crash()
        promoted_at = postgresql.fail_over()
        wait_until(lambda: writes.record.succeeded_after(promoted_at + 1) >= 60, seconds=60)
    refreshes.refresh_all()

    record = writes.record
    hold("G1", record.seconds_until_success(promoted_at), bound=WRITES_WITHIN_SECONDS)
    failed = record.failed_after(promoted_at + WRITES_WITHIN_SECONDS * contention())
    assert failed == [], summary(failed)
    ids = {attempt.subject for attempt in record.acknowledged}
    missing = lost(postgresql.primary, database_name, ids)
    hold("G4", sum(missing.values()), bound=0)
    assert refreshes.ended == {}
