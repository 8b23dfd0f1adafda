"""Shutdown: the service first reports it, then completes the requests in progress."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import REPOSITORY, GunicornService, service_environment
from tests.support.polling import wait_until
from tests.support.raw_http import RawConnection, request_bytes

READY = "/api/v1/health/ready"
SERVING = "/api/v1/health/serving"
# A hash of this cost takes long enough to be stopped in the middle of.
SLOW_HASH = "14"
LOG_IN = request_bytes(
    "POST",
    "/api/v1/auth/login",
    headers=("Content-Type: application/json",),
    body=json.dumps({"username": "nobody", "password": "wrong-password-1"}).encode(),
)


def ready(service: GunicornService, path: str = READY) -> int | None:
    """Return the status, or None if no server listens."""
    try:
        with urllib.request.urlopen(service.base_url + path, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return None


@pytest.mark.thorough
def test_it_says_not_ready_first_and_finishes_what_is_under_way(
    make_database: Callable[[str], PostgresDatabase],
) -> None:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("shutdown").url,
        "DRAIN_SECONDS": "1",
        "PASSWORD_HASH_ROUNDS": SLOW_HASH,
        "RATE_LIMIT_ENABLED": "false",
    }
    with GunicornService(environment) as service, ExitStack() as stack:
        under_way = [
            stack.enter_context(RawConnection("127.0.0.1", service.port, timeout_seconds=120))
            for _ in range(3)
        ]
        for connection in under_way:
            connection.send(LOG_IN)
        # Connections are accepted in turn, so those of the log-ins have been when this returns.
        before = ready(service)
        os.kill(service.pid, signal.SIGTERM)
        seen = []
        while (status := ready(service)) is not None:
            seen += [status, ready(service, SERVING)]
            time.sleep(0.02)
        answers = [connection.receive().status for connection in under_way]
        code = service.stop()

    assert before == 200
    assert (503, 503) in pairwise(seen)
    assert answers == [401, 401, 401]
    assert code == 0
    assert "Traceback" not in service.log


@pytest.mark.thorough
def test_a_second_sigterm_stops_at_once() -> None:
    """It delayed the stop again: in the shutdown the timer ended the master by SIGALRM."""
    environment = {"ENVIRONMENT": "testing", "DRAIN_SECONDS": "300"}
    with GunicornService(environment) as service:
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: ready(service) == 503)

        assert service.stop() == 0


@pytest.mark.thorough
def test_a_persistent_connection_is_closed() -> None:
    with (
        GunicornService({"ENVIRONMENT": "testing"}) as service,
        RawConnection("127.0.0.1", service.port) as connection,
    ):
        connection.exchange(request_bytes("GET", READY))
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in service.log)
        answer = connection.exchange(request_bytes("GET", READY))

        assert answer.status == 503
        assert answer.header("connection") == "close"
        assert connection.is_closed_by_peer()


def test_a_bad_number_ends_the_master_with_a_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
        cwd=REPOSITORY,
        env=service_environment({"ENVIRONMENT": "testing", "GUNICORN_THREADS": "many"}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 1
    assert run.stderr == "userapi: GUNICORN_THREADS: must be a whole number from 1 to 10016\n"
