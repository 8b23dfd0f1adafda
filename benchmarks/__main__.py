"""`make bench`: runs floors and service in turn, prints medians and ratios, writes JSON.

Takes TEST_DATABASE_URL and TEST_REDIS_URL of real servers, which `make bench` starts privately.
Everything is on: limits with high numbers, logs to a file, audit. Only loopback is spoken to.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from benchmarks.floors import bcrypt_checks_per_second
from benchmarks.load import Outcome, Request, send
from tests.support.gunicorn import REPOSITORY, GunicornService
from tests.support.ports import free_port

PASSWORD = "violet-harbour-93-lantern"
DATABASE = "userapi_bench"
UNLIMITED = {
    name: "900000000/minute"
    for name in (
        "RATE_LIMIT_DEFAULT",
        "RATE_LIMIT_LOGIN",
        "RATE_LIMIT_REGISTER",
        "RATE_LIMIT_PASSWORD_RESET",
        "RATE_LIMIT_REFRESH",
    )
}
# Operation, floor, and the ratio or figure that is aimed at.
TARGETS = {
    "GET /auth/verify": ("bare Flask", 0.50),
    "GET /users/me": ("bare Flask", 0.40),
    "GET /users/ (50 of all)": ("bare Flask", 0.15),
    "GET /users/?search=": ("bare Flask", None),
    "POST /auth/refresh": ("bare Flask", 0.20),
    "POST /auth/login": ("bcrypt", 0.97),
}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", help="part of an operation's name")
    parser.add_argument("--json", type=Path, default=Path("build/benchmark.json"))
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian package wrk)")
    database = _new_database()
    environment = {
        "ENVIRONMENT": "development",
        "DATABASE_URL": database,
        "REDIS_URL": os.environ["TEST_REDIS_URL"],
        "LOG_FILE": str(REPOSITORY / "build" / "benchmark.log"),
        "WEB_CONCURRENCY": "2",
        **UNLIMITED,
    }
    service = GunicornService(environment)
    _prepare(service, arguments.users)
    with service:
        results = _measure(service, database, arguments)
    _print(results)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=2))
    return 0


def _new_database() -> str:
    server = os.environ["TEST_DATABASE_URL"].replace("+psycopg2", "")
    connection = psycopg2.connect(server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
    return urlsplit(server)._replace(path=f"/{DATABASE}").geturl()


def _prepare(service: GunicornService, users: int) -> None:
    for arguments, stdin in (
        (["db", "upgrade"], ""),
        (
            [
                "users",
                "create-admin",
                "--username",
                "admin",
                "--email",
                "admin@example.com",
                "--password-stdin",
            ],
            PASSWORD + "\n",
        ),
        (["seed", "--users", str(users), "--fixed", "--password-stdin"], PASSWORD + "\n"),
    ):
        print("preparing:", " ".join(arguments), flush=True)
        subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=REPOSITORY,
            input=stdin,
            text=True,
            env=service.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    connection = psycopg2.connect(service.environment["DATABASE_URL"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    connection.close()


def _log_in(service: GunicornService) -> dict[str, Any]:
    request = urllib.request.Request(
        service.base_url + "/api/v1/auth/login",
        data=json.dumps({"username": "admin", "password": PASSWORD}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: dict[str, Any] = json.loads(answer.read())
    return body


@contextmanager
def _floor(database: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            os.devnull,  # Not that of the service.
            "--no-control-socket",
            "--worker-class",
            "gthread",
            "--workers",
            "2",
            "--threads",
            "8",
            "--keep-alive",
            "15",
            "--bind",
            f"127.0.0.1:{port}",
            "--log-level",
            "error",
            "benchmarks.floors:create_app()",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "FLOOR_DSN": database, "FLOOR_USERNAME": "admin"},
    )
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for(base + "/bare")
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            subprocess.run(["sleep", "0.05"], check=True)
    raise TimeoutError(url)


def _measure(
    service: GunicornService, database: str, arguments: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    bearer = {"Authorization": f"Bearer {_log_in(service)['access_token']}"}
    json_type = {"Content-Type": "application/json"}
    api = "/api/v1"
    # Many people: more than a few at once for one name would be refused.
    logins = [json.dumps({"username": n, "password": PASSWORD}) for n in _names(database, 64)]
    operations: dict[str, Callable[[], Request]] = {
        "GET /auth/verify": lambda: Request(path=f"{api}/auth/verify", headers=bearer),
        "GET /users/me": lambda: Request(path=f"{api}/users/me", headers=bearer),
        "GET /users/ (50 of all)": lambda: Request(
            path=f"{api}/users/?page_size=50", headers=bearer
        ),
        "GET /users/?search=": lambda: Request(
            path=f"{api}/users/?search=mar&page_size=20", headers=bearer
        ),
        # The predecessor within its grace gets the same successor: each request does the whole
        # work of a refresh but the rotation itself.
        "POST /auth/refresh": lambda: Request(
            path=f"{api}/auth/refresh",
            method="POST",
            headers=json_type,
            bodies=[
                json.dumps({"refresh_token": _log_in(service)["refresh_token"]}) for _ in range(8)
            ],
        ),
        "POST /auth/login": lambda: Request(
            path=f"{api}/auth/login", method="POST", headers=json_type, bodies=logins
        ),
    }
    results: dict[str, list[dict[str, float]]] = {}

    def note(name: str, outcome: Outcome) -> None:
        print(
            f"  {name:26} {outcome.per_second:9.1f}/s  p50 {outcome.p50:8.2f} ms  "
            f"p99 {outcome.p99:8.2f} ms  "
            f"CPU {outcome.cpu_ms:6.2f} + {outcome.database_cpu_ms:.2f} ms"
            + (f"  {outcome.errors} refused" if outcome.errors else ""),
            flush=True,
        )
        results.setdefault(name, []).append(asdict(outcome))

    database_pids = _database_pids()
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        with _floor(database) as (base, pid):
            for name, path in (("bare Flask", "/bare"), ("Flask with one SELECT", "/select")):
                note(
                    name,
                    send(
                        base,
                        Request(path=path, headers={}),
                        seconds=arguments.seconds,
                        service_pids=[pid],
                        database_pids=database_pids,
                    ),
                )
        rate = bcrypt_checks_per_second(12, arguments.seconds)
        results.setdefault("bcrypt", []).append({"per_second": rate})
        print(f"  {'bcrypt':26} {rate:9.1f}/s", flush=True)
        for name, make in operations.items():
            if arguments.only and arguments.only not in name:
                continue
            note(
                name,
                send(
                    service.base_url,
                    make(),
                    seconds=arguments.seconds,
                    service_pids=[service.pid],
                    database_pids=database_pids,
                ),
            )
    return results


def _names(database: str, count: int) -> list[str]:
    connection = psycopg2.connect(database)
    with connection.cursor() as cursor:
        cursor.execute("SELECT username FROM users WHERE status = 'active' LIMIT %s", (count,))
        names = [str(row[0]) for row in cursor.fetchall()]
    connection.close()
    return names


def _database_pids() -> list[int]:
    found = subprocess.run(["pgrep", "-x", "postgres"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def _print(results: dict[str, list[dict[str, float]]]) -> None:
    def median(name: str, key: str = "per_second") -> float:
        return statistics.median(row[key] for row in results[name])

    print(f"\n{'operation':26} {'per second':>10} {'of floor':>9} {'target':>7} {'CPU ms':>7}")
    for name in results:
        line = f"{name:26} {median(name):10.1f}"
        floor, target = TARGETS.get(name, (None, None))
        line += f" {median(name) / median(floor):9.2f}" if floor else " " * 10
        line += f" {target:7.2f}" if target else " " * 8
        if "cpu_ms" in results[name][0]:
            line += f" {median(name, 'cpu_ms') + median(name, 'database_cpu_ms'):7.2f}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
