"""Metrics are correct across several workers, and continue when one of them is replaced."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService
from tests.support.polling import wait_until


def counted(service: GunicornService) -> float:
    with urllib.request.urlopen(service.base_url + "/metrics", timeout=60) as answer:
        text = answer.read().decode()
    pattern = r'^flask_http_request_total\{endpoint="/",method="GET",status="200"\} (\S+)$'
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def ask(service: GunicornService, times: int) -> None:
    for _ in range(times):
        urllib.request.urlopen(service.base_url + "/", timeout=60).close()


@pytest.mark.thorough
def test_counts_of_all_workers_are_added_up_and_never_go_back(
    make_database: Callable[[str], PostgresDatabase],
) -> None:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("metrics").url,
        "WEB_CONCURRENCY": "2",
        "RATE_LIMIT_ENABLED": "false",
    }
    with GunicornService(environment) as service:
        ask(service, 40)
        before = {counted(service) for _ in range(6)}
        killed = service.worker_pids[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in service.worker_pids and len(service.worker_pids) == 2)
        ask(service, 10)
        after_a_death = counted(service)
        # A reload reads the configuration again and replaces every worker.
        former = set(service.worker_pids)
        os.kill(service.pid, signal.SIGHUP)
        wait_until(lambda: len(set(service.worker_pids) - former) == len(service.worker_pids) == 2)
        ask(service, 10)

        assert before == {40.0}
        assert after_a_death == 50.0
        assert counted(service) == 60.0


@pytest.mark.thorough
def test_a_kill_leaves_no_folder_that_the_next_start_does_not_remove(tmp_path: Path) -> None:
    environment = {"ENVIRONMENT": "testing", "TMPDIR": str(tmp_path)}

    def folders() -> set[Path]:
        return set(tmp_path.glob("userapi-metrics-*"))

    with GunicornService(environment) as service:
        first = folders()
        with GunicornService(environment):
            both = folders()
        service.kill()
        service.start()
        last = folders()
        service.stop()

    assert len(first) == 1
    assert len(both) == 2
    assert len(last) == 1
    assert not last & both
    assert folders() == set()
