"""Redis with Sentinel: no request fails when the master changes, and Redis is used again soon."""

import time
from pathlib import Path

import pytest

from tests.cluster.conftest import COUNTED, Deploy, Deployed, scripts_run
from tests.cluster.guarantees import hold
from tests.support.clusters.certificates import make_certificates
from tests.support.clusters.load import Checks, summary
from tests.support.clusters.redis_nodes import RedisNode
from tests.support.clusters.sentinel import RedisSentinels
from tests.support.polling import wait_until

pytestmark = pytest.mark.cluster

USED_AGAIN_SECONDS = 3.0
ACL = (
    "~userapi:* ~browser:* resetchannels +eval +evalsha +get +set +setex +del +mget +incrby +pttl"
    " +pexpire +time +ping +info +exists +expire"
)


def test_no_request_fails_when_the_master_is_killed(
    sentinels: RedisSentinels, single_database: str, deploy: Deploy
) -> None:
    deployed = deploy.service(single_database, REDIS_URL=sentinels.url(), **COUNTED)
    checks = checks_of(deployed)
    old = sentinels.master

    with checks.load():
        wait_until(lambda: scripts_run(old) > 50)
        old.crash()
        sentinels.wait_until_promoted(old)
        hold("G8", seconds_until_used(sentinels.master), bound=USED_AGAIN_SECONDS)

    failed = checks.record.failed_after(0)
    assert failed == [], summary(failed)


def test_no_request_fails_when_a_failover_is_ordered_and_connections_stay_open(
    sentinels: RedisSentinels, single_database: str, deploy: Deploy
) -> None:
    """The former master answers READONLY on connections that the service keeps."""
    deployed = deploy.service(single_database, REDIS_URL=sentinels.url(), **COUNTED)
    checks = checks_of(deployed)
    old = sentinels.master

    with checks.load():
        wait_until(lambda: len(checks.record.acknowledged) > 50)
        sentinels.fail_over()
        hold("G8", seconds_until_used(sentinels.master), bound=USED_AGAIN_SECONDS)
        # Nothing is sent to the former master any more.
        settled = scripts_run(old)
        used = scripts_run(sentinels.master)
        wait_until(lambda: scripts_run(sentinels.master) > used + 50)
        assert scripts_run(old) <= settled + (scripts_run(sentinels.master) - used)

    failed = checks.record.failed_after(0)
    assert failed == [], summary(failed)


def test_a_sentinel_that_is_away_is_passed_over(
    sentinels: RedisSentinels, single_database: str, deploy: Deploy
) -> None:
    sentinels.sentinels[0].crash()
    deployed = deploy.service(single_database, REDIS_URL=sentinels.url(), **COUNTED)
    checks = checks_of(deployed)
    before = scripts_run(sentinels.master)

    with checks.load():
        wait_until(lambda: scripts_run(sentinels.master) > before + 50)

    failed = checks.record.failed_after(0)
    assert failed == [], summary(failed)


def test_a_user_with_the_documented_rules_is_enough(
    sentinels: RedisSentinels, single_database: str, deploy: Deploy
) -> None:
    for node in sentinels.nodes:
        node.make_user("userapi", "acl-password-6yHn", ACL)
    url = sentinels.url("userapi:acl-password-6yHn")
    deployed = deploy.service(single_database, REDIS_URL=url, **COUNTED)
    checks = checks_of(deployed)
    before = scripts_run(sentinels.master)

    with checks.load():
        wait_until(lambda: scripts_run(sentinels.master) > before + 50)

    assert deployed.service.log.count("redis.unavailable") == 0
    report = deployed.admin.client.once("GET", "/api/v1/health/detailed").body
    assert report["components"]["redis"]["status"] == "up"


def test_tls_with_a_private_authority(tmp_path: Path, single_database: str, deploy: Deploy) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    with RedisSentinels(tmp_path / "redis", certificates=certificates) as cluster:
        url = cluster.url(query=f"?ssl_ca_certs={certificates.authority}")
        deployed = deploy.service(single_database, REDIS_URL=url, **COUNTED)
        checks = checks_of(deployed)

        with checks.load():
            wait_until(lambda: scripts_run(cluster.master) > 50)

        assert checks.record.failed_after(0) == []


def checks_of(deployed: Deployed) -> Checks:
    """Return checks with the tokens of five sessions."""
    tokens = [session.client.token or "" for session in deployed.log_in(5)]
    return Checks([deployed.base_url], tokens)


def seconds_until_used(node: RedisNode) -> float:
    """Return how long it took until a Redis ran scripts for the service."""
    began_at = time.monotonic()
    before = scripts_run(node)
    wait_until(lambda: scripts_run(node) > before + 5, seconds=20)
    return time.monotonic() - began_at
