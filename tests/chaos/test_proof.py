"""The short form of `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.proof import Chaos, Plan


@pytest.mark.chaos
def test_nothing_is_lost_while_processes_die_and_the_broker_goes(run_directory: Path) -> None:
    plan = Plan(users=120, seconds=15, broker_restarts=1)

    figures = Chaos(run_directory / "chaos", plan).run()

    assert figures.faults == [], str(figures)
    assert figures.gunicorn_workers_killed >= 5
    assert (figures.relays_killed, figures.broker_restarts) == (1, 1)
    assert figures.users_acknowledged == 120
