"""The short form of `make soak`, without its verdict on growth, which needs an hour."""

from pathlib import Path

import pytest

from tests.soak.trial import Plan, run_trial


@pytest.mark.slow
def test_requests_succeed_while_servers_are_restarted(run_directory: Path) -> None:
    plan = Plan(seconds=60, import_every=10, restart_every=15)

    report = run_trial(run_directory / "soak", plan)

    assert report.restarts >= 2
    assert [fault for fault in report.faults if "grows by" not in fault] == []
