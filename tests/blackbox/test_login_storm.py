"""A burst of log-ins: other requests stay fast, and some log-ins are rejected as busy."""

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import REPOSITORY, GunicornService, service_environment
from tests.support.polling import least
from tests.support.raw_http import RawConnection, RawResponse, request_bytes

JSON = "Content-Type: application/json"
PASSWORD = "violet-harbour-93-lantern"
# The limit for a liveness check, under any number of log-ins.
LIVE_SECONDS = 1.0


@pytest.fixture(scope="module")
def service(
    make_database: Callable[[str], PostgresDatabase], redis_url: str
) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("login_storm").url,
        "REDIS_URL": redis_url,
        "PASSWORD_HASH_ROUNDS": "10",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "1",
    }
    with GunicornService(environment) as service:
        yield service


def post(path: str, **members: str) -> bytes:
    return request_bytes("POST", path, headers=(JSON,), body=json.dumps(members).encode())


def exchange(service: GunicornService, request: bytes) -> RawResponse:
    with RawConnection("127.0.0.1", service.port, timeout_seconds=60) as connection:
        return connection.exchange(request)


@pytest.fixture(scope="module")
def token(service: GunicornService) -> str:
    exchange(
        service,
        post("/api/v1/auth/register", username="robin", email="robin@acme.test", password=PASSWORD),
    )
    answer = exchange(service, post("/api/v1/auth/login", username="robin", password=PASSWORD))
    return str(json.loads(answer.body)["access_token"])


@pytest.mark.thorough
@pytest.mark.parametrize("log_ins", [pytest.param(60, marks=pytest.mark.slow), 200])
def test_reads_and_liveness_are_fast_during_a_burst_of_log_ins(
    service: GunicornService, token: str, log_ins: int
) -> None:
    """Each log-in held one of 24 threads: with 60 of them `/health/live` took 16 s."""
    bearer = (f"Authorization: Bearer {token}",)
    # From the cached session in Redis, and from PostgreSQL.
    reads = [
        request_bytes("GET", path, headers=bearer)
        for path in ("/api/v1/users/me", "/api/v1/auth/sessions")
    ]

    def most_seconds_of_liveness(round_number: int) -> float:
        with ExitStack() as stack:
            storm = [
                stack.enter_context(RawConnection("127.0.0.1", service.port, timeout_seconds=120))
                for _ in range(log_ins)
            ]
            for number, connection in enumerate(storm):
                name = f"nobody-{log_ins}-{round_number}-{number}"
                connection.send(
                    post("/api/v1/auth/login", username=name, password="wrong-password-1")
                )
            live_seconds = []
            for _ in range(8):
                begun = time.monotonic()
                assert exchange(service, request_bytes("GET", "/api/v1/health/live")).status == 200
                live_seconds.append(time.monotonic() - begun)
                assert [exchange(service, read).status for read in reads] == [200, 200]
            check([connection.receive() for connection in storm], log_ins)
        return max(live_seconds)

    rounds = itertools.count()
    seconds = least(lambda: most_seconds_of_liveness(next(rounds)), below=LIVE_SECONDS)
    assert seconds < LIVE_SECONDS


def check(answers: list[RawResponse], log_ins: int) -> None:
    """Check that each of the log-ins was answered, or refused with a hint when to try again."""
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {401, 503}
    assert statuses[401] >= min(log_ins, 60)
    refused = [answer for answer in answers if answer.status == 503]
    assert all(answer.header("retry-after") for answer in refused)
    assert log_ins == 60 or "busy" in {json.loads(answer.body)["code"] for answer in refused}


def test_too_few_threads_for_the_log_in_limit_are_rejected_at_the_start() -> None:
    given = {"ENVIRONMENT": "testing", "GUNICORN_THREADS": "24", "PASSWORD_HASH_QUEUE": "100"}
    run = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
        cwd=REPOSITORY,
        env=service_environment(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 1
    assert run.stderr == (
        "userapi: GUNICORN_THREADS: must be at least PASSWORD_HASH_QUEUE + 16, here 116\n"
    )
