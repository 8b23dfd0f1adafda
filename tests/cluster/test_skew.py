"""The clock of one of two processes is wrong."""

from pathlib import Path

import pytest

from tests.cluster.conftest import Deploy, Deployed
from tests.support.clusters.load import log_in
from tests.support.programs import FAKETIME, may_be_skipped
from tests.support.service_clients import RecordingClient

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(may_be_skipped(FAKETIME), reason="faketime is not installed"),
]


def skewed(seconds: int) -> dict[str, str]:
    """Return the variables that move the clock of a process."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}s",
    }


@pytest.fixture
def deployed(single_database: str, deploy: Deploy) -> Deployed:
    """Return a service whose clock is right."""
    return deploy.service(single_database)


@pytest.mark.parametrize("seconds", [-4, 4])
def test_a_small_skew_ends_no_session_and_refuses_no_token(
    deployed: Deployed, single_database: str, deploy: Deploy, seconds: int
) -> None:
    other = deploy.process(single_database, **skewed(seconds))
    urls = [deployed.base_url, other.base_url]
    (name,) = deployed.make_users(1)

    for first, second in (urls, urls[::-1]):
        session = log_in(first, name)
        for url in (second, first, second):
            client = RecordingClient(url, token=session.client.token)
            assert client.once("GET", "/api/v1/auth/verify").status == 200
            body = {"refresh_token": session.refresh_token}
            answer = client.once("POST", "/api/v1/auth/refresh", body)
            assert answer.status == 200, answer.body
            session.refresh_token = answer.body["refresh_token"]
            session.client.token = answer.body["access_token"]
    # CLOCK_SKEW_SECONDS is 5.
    assert "clock.skewed" not in other.log
