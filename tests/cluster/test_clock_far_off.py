"""The clock of a process is wrong by more than the leeway of tokens."""

import http.client
import urllib.request

import pytest

from tests.cluster.conftest import Deploy, Deployed
from tests.cluster.test_skew import skewed
from tests.support.programs import FAKETIME, may_be_skipped

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(may_be_skipped(FAKETIME), reason="faketime is not installed"),
]

READY = "/api/v1/health/ready"


@pytest.fixture
def deployed(single_database: str, deploy: Deploy) -> Deployed:
    """Return a service whose clock is right."""
    return deploy.service(single_database)


@pytest.mark.parametrize("seconds", [-15, 15])
def test_a_process_whose_clock_is_far_off_is_not_ready_and_says_so(
    deployed: Deployed, single_database: str, deploy: Deploy, seconds: int
) -> None:
    """Tokens have a leeway of 10 s: other processes would refuse what this one issues."""
    other = deploy.process(single_database, METRICS_TOKEN="metrics-4fZq81Lw0c", **skewed(seconds))

    assert status_of(deployed.base_url + READY) == 200
    assert status_of(other.base_url + READY) == 503
    request = urllib.request.Request(
        f"{other.base_url}/metrics", headers={"Authorization": "Bearer metrics-4fZq81Lw0c"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith("clock_skew_seconds"))
    assert abs(float(line.rpartition(" ")[2]) - seconds) < 2
    assert "clock.skewed" in other.log


def status_of(url: str) -> int:
    """Return the status of a request."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().status
    finally:
        connection.close()
