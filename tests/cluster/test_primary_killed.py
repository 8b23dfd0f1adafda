"""The primary is killed with SIGKILL and a synchronous standby is promoted."""

import pytest

from tests.cluster.conftest import Deploy, lost
from tests.cluster.guarantees import contention, hold
from tests.support.clusters.load import Refreshes, Session, Writes, summary
from tests.support.clusters.postgresql import PostgresCluster
from tests.support.polling import wait_until
from tests.support.service_clients import Answer

pytestmark = pytest.mark.cluster

WRITES_WITHIN_SECONDS = 1.0


def test_writes_continue_within_a_second_and_nothing_acknowledged_is_lost(
    postgresql: PostgresCluster, database_name: str, deploy: Deploy
) -> None:
    old = postgresql.primary
    deployed = deploy.service(postgresql.url(database_name, [old, *postgresql.standbys]))
    writes = Writes([deployed.base_url], deployed.token)
    refreshes = Refreshes(deployed.log_in(8))
    ended, promoted = deployed.log_in(6), deployed.log_in(6)

    with writes.load(), refreshes.load():
        wait_until(lambda: len(writes.record.acknowledged) >= 60, seconds=60)
        for session in promoted:
            user = session.client.once("GET", "/api/v1/users/me").body["id"]
            roles = {"roles": ["user", "moderator"]}
            path = f"/api/v1/users/{user}/roles"
            assert deployed.admin.client.once("PUT", path, roles).status == 200
        for session in ended:
            assert session.client.once("POST", "/api/v1/auth/logout").status == 204
        # The last of these was acknowledged a moment ago.
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
    assert [verify(session).status for session in ended] == [401] * 6
    for session in promoted:
        assert "users:suspend" in verify(session).body["permissions"]


def verify(session: Session) -> Answer:
    """Return what the service says about the access token of a session."""
    return session.client.once("GET", "/api/v1/auth/verify")
