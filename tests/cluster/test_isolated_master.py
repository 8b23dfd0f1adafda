"""A Redis master is cut off from its replica, which is promoted; one process still reaches it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import COUNTED, Deploy
from tests.cluster.guarantees import hold
from tests.support.clusters.load import Checks
from tests.support.clusters.redis_nodes import RedisPair
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

MAX_LAG_SECONDS = 2
ACCEPTED_SECONDS = MAX_LAG_SECONDS + 1.0
WATCHED_SECONDS = 12.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RedisPair]:
    """Return a master that refuses writes once its replica has been away for a while."""
    options = {"min-replicas-to-write": "1", "min-replicas-max-lag": str(MAX_LAG_SECONDS)}
    with RedisPair(tmp_path / "redis", master_options=options) as pair:
        yield pair


def test_a_process_that_reaches_the_old_master_refuses_a_revoked_token_soon(
    pair: RedisPair, single_database: str, deploy: Deploy
) -> None:
    isolated = deploy.service(single_database, REDIS_URL=pair.master.url, **COUNTED)
    elsewhere = deploy.process(single_database, REDIS_URL=pair.replica.url, **COUNTED)
    (session,) = isolated.log_in(1)
    for _ in range(3):
        assert session.client.once("GET", "/api/v1/users/me").status == 200
    pair.wait_until_in_step()

    pair.cut_replica_off()
    pair.promote_replica()
    checks = Checks([isolated.base_url], [session.client.token or ""])
    session.client = session.client.at(elsewhere.base_url)
    with checks.load(per_second=25, threads=2):
        assert session.client.once("POST", "/api/v1/auth/logout").status == 204
        revoked_at = time.monotonic()
        wait_until(lambda: time.monotonic() > revoked_at + WATCHED_SECONDS, seconds=30)

    last = max((a.began_at for a in checks.record.acknowledged), default=revoked_at)
    hold("G7", max(0.0, last - revoked_at), bound=ACCEPTED_SECONDS)
    assert len(checks.record.attempts) > 100
