"""A Redis failover loses the last writes, among them the end of a session."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.conftest import COUNTED, Deploy, scripts_run
from tests.cluster.guarantees import hold
from tests.support.clusters.load import Checks, summary
from tests.support.clusters.redis_nodes import PASSWORD, RedisPair
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy, proxy_to, url_through
from tests.support.service_clients import RecordingClient

pytestmark = pytest.mark.cluster

# Longer than a cached session lives (SESSION_CACHE_SECONDS, 10).
WATCHED_SECONDS = 13.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RedisPair]:
    with RedisPair(tmp_path / "redis") as pair:
        yield pair


def test_no_request_with_a_revoked_token_is_accepted_after_a_failover(
    pair: RedisPair, single_database: str, deploy: Deploy
) -> None:
    """A copy of the session that the replica still had was accepted 178 times in 9.6 s."""
    with FaultProxy("127.0.0.1", pair.master.port) as route:
        redis_url = f"redis://:{PASSWORD}@{route.host}:{route.port}/0"
        deployed = deploy.service(
            single_database, REDIS_URL=redis_url, WEB_CONCURRENCY="2", **COUNTED
        )
        revoked, valid = deployed.log_in(2)
        for session in (revoked, valid, revoked, valid):
            assert session.client.once("GET", "/api/v1/users/me").status == 200
        pair.wait_until_in_step()
        pair.cut_replica_off()
        assert revoked.client.once("POST", "/api/v1/auth/logout").status == 204
        assert revoked.client.once("GET", "/api/v1/users/me").status == 401

        pair.master.crash()
        pair.promote_replica()
        route.lead_to(pair.replica.port)
        route.refuse()
        route.pass_on()
        failed_over_at = time.monotonic()
        before = scripts_run(pair.replica)
        after_logout = Checks([deployed.base_url], [revoked.client.token or ""])
        others = Checks([deployed.base_url], [valid.client.token or ""])
        with after_logout.load(per_second=25, threads=2), others.load(per_second=10, threads=1):
            wait_until(lambda: time.monotonic() > failed_over_at + WATCHED_SECONDS, seconds=30)

    assert others.record.failed_after(0) == [], summary(others.record.attempts)
    hold("G6", len(after_logout.record.acknowledged), bound=0)
    # Or the promoted server was never read, and the test would prove nothing.
    assert scripts_run(pair.replica) > before + 10


def test_a_fill_that_is_under_way_during_a_failover_revives_no_session(
    pair: RedisPair, single_database: str, deploy: Deploy
) -> None:
    """The process has read the live session; the replica has its placeholder and no tombstone."""
    redis_url = f"redis://:{PASSWORD}@127.0.0.1"
    with (
        FaultProxy("127.0.0.1", pair.master.port) as route,
        proxy_to(single_database) as database,
        ThreadPoolExecutor(1) as pool,
    ):
        revoking = deploy.service(
            single_database, REDIS_URL=f"{redis_url}:{pair.master.port}/0", **COUNTED
        )
        filling = deploy.process(
            url_through(database, single_database),
            REDIS_URL=f"{redis_url}:{route.port}/0",
            **COUNTED,
        )
        session, other = revoking.log_in(2)
        other.client = other.client.at(filling.base_url)
        # Its connection to the database is in use, so the next read needs no question before it.
        assert other.client.once("GET", "/api/v1/users/me").status == 200
        before = database.answers_held
        database.delay(60)
        reader = RecordingClient(filling.base_url, token=session.client.token)
        answer = pool.submit(reader.once, "GET", "/api/v1/users/me")
        wait_until(lambda: database.answers_held > before)
        pair.wait_until_in_step()
        pair.cut_replica_off()
        assert session.client.once("POST", "/api/v1/auth/logout").status == 204

        pair.master.crash()
        pair.promote_replica()
        route.lead_to(pair.replica.port)
        route.refuse()
        route.pass_on()
        database.pass_on()
        # It was live when it was read, or the test would prove nothing.
        assert answer.result(60).status == 200
        accepted = [
            status
            for status in (reader.once("GET", "/api/v1/users/me").status for _ in range(20))
            if status != 401
        ]

    hold("G6", len(accepted), bound=0)


def test_no_request_with_a_revoked_key_is_accepted_after_a_failover(
    pair: RedisPair, single_database: str, deploy: Deploy
) -> None:
    """The replica still has the copy of the key, and no tombstone."""
    with FaultProxy("127.0.0.1", pair.master.port) as route:
        redis_url = f"redis://:{PASSWORD}@{route.host}:{route.port}/0"
        deployed = deploy.service(
            single_database, REDIS_URL=redis_url, WEB_CONCURRENCY="2", **COUNTED
        )
        admin, accounts = deployed.admin.client, "/api/v1/service-accounts/"
        account = admin.once("POST", accounts, {"name": "robot", "roles": ["moderator"]}).body
        keys = f"{accounts}{account['id']}/api-keys/"
        leaked, valid = (admin.once("POST", keys, {"name": "ci"}).body for _ in range(2))
        grant = {"grant_type": "client_credentials", "client_id": account["id"]}
        token = admin.once(
            "POST", "/api/v1/auth/token", {**grant, "client_secret": leaked["key"]}
        ).body["access_token"]
        dead = [leaked["key"], token]
        for credential in [*dead, valid["key"]] * 2:
            client = RecordingClient(deployed.base_url, token=credential)
            assert client.once("GET", "/api/v1/auth/verify").status == 200
        pair.wait_until_in_step()
        pair.cut_replica_off()
        assert admin.once("DELETE", f"{keys}{leaked['id']}").status == 204

        pair.master.crash()
        pair.promote_replica()
        route.lead_to(pair.replica.port)
        route.refuse()
        route.pass_on()
        failed_over_at = time.monotonic()
        before = scripts_run(pair.replica)
        revoked = Checks([deployed.base_url], dead, path="/api/v1/auth/verify")
        others = Checks([deployed.base_url], [valid["key"]], path="/api/v1/auth/verify")
        with revoked.load(per_second=25, threads=2), others.load(per_second=10, threads=1):
            wait_until(lambda: time.monotonic() > failed_over_at + WATCHED_SECONDS, seconds=30)

    assert others.record.failed_after(0) == [], summary(others.record.attempts)
    hold("G6", len(revoked.record.acknowledged), bound=0)
    assert scripts_run(pair.replica) > before + 10
