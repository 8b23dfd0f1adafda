"""Replication stalls, or was behind when the primary was lost, while sessions are refreshed.

A refresh whose answer was lost is repeated with the token that the client has. That must not end
the session, however long the stall was.
"""

import time

import pytest

from tests.cluster.conftest import Deploy
from tests.cluster.guarantees import hold
from tests.support.clusters.load import Refreshes
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

SESSIONS = 8
# Longer than REFRESH_REUSE_GRACE_SECONDS, which is 10.
STALL_SECONDS = 12.0
BEHIND_SECONDS = 3.0


@pytest.fixture
def refreshes(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy, redis_url: str
) -> Refreshes:
    """Return sessions of two processes that share a Redis, each refreshed at least twice."""
    deployed = deploy.service(
        postgresql.url(database_name, [postgresql.primary, *postgresql.standbys]),
        WEB_CONCURRENCY="2",
        REDIS_URL=redis_url,
    )
    refreshes = Refreshes(deployed.log_in(SESSIONS))
    refreshes.refresh_all()
    refreshes.refresh_all()
    return refreshes


def test_a_stall_without_a_failover_ends_no_session(
    postgresql: PostgresCluster, refreshes: Refreshes
) -> None:
    """A stall of 17 s ended 8 of 8 sessions as `refresh_token_reused`."""
    with refreshes.load():
        postgresql.stall_replication()
        time.sleep(STALL_SECONDS)  # The length of the stall is the fault.
        postgresql.resume_replication()
        resumed_at = time.monotonic()
        wait_until(lambda: went_on_or_ended(refreshes, resumed_at), seconds=60)

    hold("G5", len(refreshes.ended), bound=0)


def test_a_stall_and_a_failover_end_no_session(
    postgresql: PostgresCluster, refreshes: Refreshes
) -> None:
    """A stall of 13 s and a failover ended 16 of 16 sessions as `refresh_token_reused`."""
    with refreshes.load():
        postgresql.stall_replication()
        time.sleep(STALL_SECONDS)  # The length of the stall is the fault.
        postgresql.primary.crash()
        # The promoted server has rotations that no client has received an answer to.
        promoted_at = postgresql.fail_over(deliver_backlog=True)
        wait_until(lambda: went_on_or_ended(refreshes, promoted_at), seconds=60)

    hold("G5", len(refreshes.ended), bound=0)


def test_a_failover_that_lost_the_last_refreshes_ends_no_session(
    postgresql: PostgresCluster, database_name: str, refreshes: Refreshes
) -> None:
    """Clients had newer tokens than the promoted server: 8 of 8 sessions were ended."""
    postgresql.replicate(synchronously=False)
    with refreshes.load():
        postgresql.stall_replication()
        time.sleep(BEHIND_SECONDS)  # The delay of the standby is the fault.
    before = newest_rotation(postgresql, database_name)
    postgresql.primary.crash()
    postgresql.fail_over()
    # Otherwise nothing was lost, and the test would prove nothing.
    assert newest_rotation(postgresql, database_name) < before

    with refreshes.load():
        resumed_at = time.monotonic()
        wait_until(lambda: went_on_or_ended(refreshes, resumed_at), seconds=60)

    hold("G5", len(refreshes.ended), bound=0)


def went_on_or_ended(refreshes: Refreshes, moment: float) -> bool:
    """Return whether each session was refreshed since a moment, or has ended."""
    going_on = {a.subject for a in refreshes.record.acknowledged if a.began_at >= moment}
    return all(s.ended_by or s.username in going_on for s in refreshes.sessions)


def newest_rotation(postgresql: PostgresCluster, database: str) -> float:
    """Return the newest moment at which a session was refreshed, by the primary."""
    query = "SELECT extract(epoch FROM max(rotated_at)) FROM user_sessions"
    return float(postgresql.primary.value(query, database))
