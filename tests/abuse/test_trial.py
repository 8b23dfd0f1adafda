"""The short form of `make abuse`, without its verdict on latencies."""

from pathlib import Path

import pytest

from tests.abuse.hostile import ATTACKS
from tests.abuse.trial import Plan, run_trial


@pytest.mark.slow
def test_honest_requests_succeed_during_hostile_traffic(run_directory: Path) -> None:
    report = run_trial(run_directory / "abuse", Plan(alone_seconds=20, abused_seconds=60))

    assert report.alone.failures == []
    assert report.abused.failures == []
    assert set(report.answers) == {attack.name for attack in ATTACKS}
    assert report.last.temporary_mib < 5
