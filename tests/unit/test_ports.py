"""Servers of tests get ports that no other test chooses before they start."""

import pytest

from tests.support.ports import free_port


def test_workers_choose_from_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    remainders = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        remainders.append({free_port() % 3 for _ in range(50)})

    assert sorted(remainder for each in remainders for remainder in each) == [0, 1, 2]


def test_a_port_is_not_chosen_again_before_its_server_can_start() -> None:
    ports = [free_port() for _ in range(400)]

    assert len(set(ports)) == len(ports)
