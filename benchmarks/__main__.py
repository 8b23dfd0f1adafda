"""`make bench`: runs floors and service in turn, prints medians and ratios, writes JSON.

Takes TEST_DATABASE_URL, TEST_REDIS_URL and TEST_RABBITMQ_URL of real servers, which `make bench`
starts privately.
Everything is on: limits with high numbers, logs to a file, audit. Only loopback is spoken to.
"""

import argparse
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg2

from benchmarks.events import delivery_milliseconds, relayed_per_second
from benchmarks.floors import bcrypt_checks_per_second
from benchmarks.load import Outcome, Request, send
from benchmarks.pace import Paced, send_at_rate
from benchmarks.pages import page_milliseconds
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
        "RATE_LIMIT_EMAIL_CHANGE",
        "RATE_LIMIT_PASSWORD_STRENGTH",
        "RATE_LIMIT_SERVICE",
        "RATE_LIMIT_TOKEN",
    )
}
BARE, SELECT, BCRYPT = "bare Flask", "Flask with one SELECT", "bcrypt"
BY_KEY, CLIENT_TOKEN = "GET /auth/verify by key", "POST /auth/token"
ME, LOG_IN, SEARCH = "GET /users/me", "POST /auth/login", "GET /users/?search="
# Operation, floor, and the ratio or figure that is aimed at.
TARGETS = {
    "GET /auth/verify": {BARE: 0.50},
    BY_KEY: {BARE: 0.45},
    CLIENT_TOKEN: {BARE: 0.20},
    ME: {BARE: 0.40, SELECT: 0.60},
    "GET /users/ (50 of all)": {BARE: 0.15},
    "POST /auth/refresh": {BARE: 0.20},
    LOG_IN: {BCRYPT: 0.92},
    "POST /users/": {BCRYPT: 0.95},
}
# What is no ratio of two rates: name, unit, and whether more or less of it is aimed at.
FIGURES = {
    "CPU of a search": ("ms", "<=", 8.0),
    "p99 of a read in a storm of log-ins": ("times alone", "<=", 3.0),
    "log-ins in that storm": ("of alone", ">=", 0.8),
    "events confirmed": ("/s", ">=", 5000.0),
    "commit to delivery, p95": ("ms", "<=", 50.0),
    "slowest page of the console, median": ("ms", "<=", 50.0),
    "start to the first 200": ("s", "<=", 2.0),
    "memory of a worker after load": ("MB", "<=", 90.0),
}
STORM_CONNECTIONS = 16
# Eight connections that stay open fall to two processes by chance; a ratio of rates means nothing
# where one of them idles.
MIN_BALANCE = 0.6
MAX_TRIES = 8
# What can be tried out: passed on to the service.
GUNICORN = ("WEB_CONCURRENCY", "GUNICORN_THREADS", "PASSWORD_HASH_QUEUE")
RELAYED = 20_000


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--hash-seconds", type=int, default=30, help="for what waits for bcrypt")
    parser.add_argument("--soak", type=int, default=0, help="seconds of load after the rounds")
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
        # The administrator logs in for each of many connections.
        "SESSION_MAX_PER_USER": "1000",
        **{name: os.environ[name] for name in GUNICORN if name in os.environ},
        **UNLIMITED,
    }
    service = GunicornService(environment)
    _prepare(service, arguments.users)
    figures: dict[str, list[float]] = {}
    with service:
        rates = _measure(service, database, arguments, figures)
        if not arguments.only:
            _measure_once(service, arguments, figures)
    _print(rates, figures)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"rates": rates, "figures": figures}, indent=2))
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
        (
            ["seed", "--users", str(users), "--fixed", "--mfa-percent", "0", "--password-stdin"],
            PASSWORD + "\n",
        ),
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
            "--pythonpath",
            str(REPOSITORY),
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
        cwd=REPOSITORY / "benchmarks",  # Where no configuration of the service is found.
        env={**os.environ, "FLOOR_DSN": database, "FLOOR_USERNAME": "admin"},
    )
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for(base + "/bare")
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str, pause_seconds: float = 0.05) -> None:
    for _ in range(int(20 / pause_seconds)):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(pause_seconds)
    raise TimeoutError(url)


def _measure(
    service: GunicornService,
    database: str,
    arguments: argparse.Namespace,
    figures: dict[str, list[float]],
) -> dict[str, list[dict[str, float]]]:
    rates: dict[str, list[dict[str, float]]] = {}
    # The service needs more of a moment where the answer waits for a hash.
    slow = (LOG_IN, "POST /users/")
    database_pids = _database_pids()

    def load(name: str, base: str, request: Callable[[], Request], pid: int) -> Outcome:
        for _ in range(MAX_TRIES):
            outcome = send(
                base,
                request(),
                seconds=arguments.hash_seconds if name in slow else arguments.seconds,
                service_pids=[pid],
                database_pids=database_pids,
            )
            lopsided = outcome.balance < MIN_BALANCE and name not in slow
            print(
                f"  {name:26} {outcome.per_second:9.1f}/s  p50 {outcome.p50:8.2f} ms  "
                f"p99 {outcome.p99:8.2f} ms  "
                f"CPU {outcome.cpu_ms:6.2f} + {outcome.database_cpu_ms:.2f} ms"
                + (f"  {outcome.errors} refused" if outcome.errors else "")
                + ("  (again: one worker had most of it)" if lopsided else ""),
                flush=True,
            )
            if outcome.errors:
                raise AssertionError(f"{name} was refused {outcome.errors} times")
            if not lopsided:
                break
        rates.setdefault(name, []).append(asdict(outcome))
        return outcome

    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        with _floor(database) as (base, pid):
            for name, path in ((BARE, "/bare"), (SELECT, "/select")):
                load(name, base, partial(Request, path=path, headers={}), pid)
        rate = bcrypt_checks_per_second(12, arguments.hash_seconds)
        rates.setdefault(BCRYPT, []).append({"per_second": rate})
        print(f"  {BCRYPT:26} {rate:9.1f}/s", flush=True)
        operations = _operations(service, database)
        for name, make in operations.items():
            if not arguments.only or arguments.only in name:
                load(name, service.base_url, make, service.pid)
        search = rates.get(SEARCH)
        if search:
            cost = search[-1]["cpu_ms"] + search[-1]["database_cpu_ms"]
            figures.setdefault("CPU of a search", []).append(cost)
        if not arguments.only:
            reads, logins = rates[ME][-1]["per_second"], rates[LOG_IN][-1]["per_second"]
            _storm(service, operations, reads / 10, logins, arguments.hash_seconds, figures)
    return rates


def _operations(service: GunicornService, database: str) -> dict[str, Callable[[], Request]]:
    """Return what is sent; each makes its tokens when its turn comes."""
    bearer = {"Authorization": f"Bearer {_log_in(service)['access_token']}"}
    json_type = {"Content-Type": "application/json"}
    api = "/api/v1"
    # Many people: more than a few at once for one name would be refused.
    logins = [json.dumps({"username": n, "password": PASSWORD}) for n in _names(database, 64)]
    batch = uuid4().hex[:8]
    client_id, key = _new_service_account(service, bearer, f"bench-{batch}")
    basic = base64.b64encode(f"{client_id}:{key}".encode()).decode()
    made = {
        "username": f"made-{batch}-#",
        "email": f"made-{batch}-#@example.com",
        "password": PASSWORD,
    }
    return {
        "GET /auth/verify": lambda: Request(path=f"{api}/auth/verify", headers=bearer),
        BY_KEY: lambda: Request(
            path=f"{api}/auth/verify", headers={"Authorization": f"Bearer {key}"}
        ),
        CLIENT_TOKEN: lambda: Request(
            path=f"{api}/auth/token",
            method="POST",
            headers={
                "Authorization": f"Basic {basic}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            bodies=["grant_type=client_credentials"],
        ),
        ME: lambda: Request(path=f"{api}/users/me", headers=bearer),
        "GET /users/ (50 of all)": lambda: Request(
            path=f"{api}/users/?page_size=50", headers=bearer
        ),
        SEARCH: lambda: Request(path=f"{api}/users/?search=martin&page_size=20", headers=bearer),
        # So many match that finding and sorting them is nearly all of the work.
        "GET /users/?search= (8 %)": lambda: Request(
            path=f"{api}/users/?search=mar&page_size=20", headers=bearer
        ),
        "POST /auth/refresh": lambda: Request(
            path=f"{api}/auth/refresh",
            method="POST",
            headers=json_type,
            bodies=[
                json.dumps({"refresh_token": _log_in(service)["refresh_token"]}) for _ in range(8)
            ],
            successor="refresh_token",
        ),
        LOG_IN: lambda: Request(
            path=f"{api}/auth/login", method="POST", headers=json_type, bodies=logins
        ),
        "POST /users/": lambda: Request(
            path=f"{api}/users/",
            method="POST",
            headers={**bearer, **json_type},
            bodies=[json.dumps(made)],
            is_numbered=True,
        ),
    }


def _new_service_account(
    service: GunicornService, bearer: dict[str, str], name: str
) -> tuple[str, str]:
    """Create a service account with a key; return its id and the text of the key."""

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{service.base_url}/api/v1/service-accounts/{path}",
            data=json.dumps(body).encode(),
            headers={**bearer, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    account_id = str(post("", {"name": name, "roles": ["moderator"]})["id"])
    return account_id, str(post(f"{account_id}/api-keys/", {"name": "bench"})["key"])


def _storm(
    service: GunicornService,
    operations: dict[str, Callable[[], Request]],
    per_second: float,
    logins_alone: float,
    seconds: int,
    figures: dict[str, list[float]],
) -> None:
    """Read at a fixed rate alone, then while as many as can log in."""
    read = operations[ME]()
    url = service.base_url + read.path

    def reads() -> Paced:
        return send_at_rate(url, read.headers, per_second=per_second, seconds=seconds - 1)

    alone = reads()
    if alone.refused:
        raise AssertionError(f"{alone.refused} reads were refused")
    with ThreadPoolExecutor(1) as background:
        logins = background.submit(
            send,
            service.base_url,
            operations[LOG_IN](),
            seconds=seconds,
            connections=STORM_CONNECTIONS,
            service_pids=[service.pid],
        )
        stormy = reads()
        rate = logins.result().per_second
    for name, paced in (("alone", alone), ("in a storm", stormy)):
        print(
            f"  {ME} at {per_second:.0f}/s {name}: p50 {paced.p50:.2f} ms, p99 {paced.p99:.2f} ms"
            + (f", {paced.refused} refused" if paced.refused else ""),
            flush=True,
        )
    print(f"  log-ins meanwhile: {rate:.1f}/s", flush=True)
    figures.setdefault("p99 of a read in a storm of log-ins", []).append(stormy.p99 / alone.p99)
    figures.setdefault("log-ins in that storm", []).append(rate / logins_alone)


def _measure_once(
    service: GunicornService, arguments: argparse.Namespace, figures: dict[str, list[float]]
) -> None:
    """Measure what takes no rounds: memory, events, the start."""
    memory = "memory of a worker after load"
    figures[memory] = [max(_megabytes(pid) for pid in service.worker_pids)]
    pages = page_milliseconds(service.base_url, "admin", PASSWORD)
    for name, milliseconds in pages.items():
        print(f"  page: {name:20} {milliseconds:8.1f} ms", flush=True)
    figures["slowest page of the console, median"] = [max(pages.values())]
    headers = {"Authorization": f"Bearer {_log_in(service)['access_token']}"}
    if arguments.soak:
        me = Request(path="/api/v1/users/me", headers=headers)
        print(f"soaking: {figures[memory][0]:.0f} MB before", flush=True)
        send(service.base_url, me, seconds=arguments.soak, service_pids=[service.pid])
        figures[memory].append(max(_megabytes(pid) for pid in service.worker_pids))
        print(f"soaked: {figures[memory][1]:.0f} MB after {arguments.soak} s", flush=True)
        headers = {"Authorization": f"Bearer {_log_in(service)['access_token']}"}
    broker = {**service.environment, "RABBITMQ_URL": os.environ["TEST_RABBITMQ_URL"]}
    waits = delivery_milliseconds(broker, service.base_url + "/api/v1/users/me", headers)
    print(f"  commit to delivery: p50 {waits['p50']:.1f} ms, p95 {waits['p95']:.1f} ms", flush=True)
    figures["commit to delivery, p95"] = [waits["p95"]]
    figures["events confirmed"] = [relayed_per_second(broker, RELAYED) for _ in range(3)]
    for _ in range(3):
        service.stop()
        begun = time.perf_counter()
        service.launch()
        _wait_for(service.base_url + "/api/v1/health/live", pause_seconds=0.01)
        figures.setdefault("start to the first 200", []).append(time.perf_counter() - begun)


def _megabytes(pid: int) -> float:
    """Return the memory of a process: its own, and its share of what several have in common."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("\nPss:")[1].split()[0]) / 1024


def _names(database: str, count: int) -> list[str]:
    connection = psycopg2.connect(database)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT username FROM users WHERE status = 'active' AND username <> 'admin' LIMIT %s",
            (count,),
        )
        names = [str(row[0]) for row in cursor.fetchall()]
    connection.close()
    return names


def _database_pids() -> list[int]:
    found = subprocess.run(["pgrep", "-x", "postgres"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def _print(rates: dict[str, list[dict[str, float]]], figures: dict[str, list[float]]) -> None:
    def median(name: str, key: str = "per_second") -> float:
        return statistics.median(row[key] for row in rates[name])

    print(
        f"\n{'operation':26} {'per second':>10} {'CPU ms':>7}  ratio to its floor, and its target"
    )
    for name in rates:
        line = f"{name:26} {median(name):10.1f}"
        if "cpu_ms" in rates[name][0]:
            line += f" {median(name, 'cpu_ms') + median(name, 'database_cpu_ms'):7.2f}"
        for floor, target in TARGETS.get(name, {}).items():
            ratio = median(name) / median(floor)
            line += f"  {ratio:.2f} of {floor} (>= {target:.2f}{_mark(ratio >= target)})"
        print(line)
    print()
    for name, (unit, direction, aim) in FIGURES.items():
        if name in figures:
            value = statistics.median(figures[name])
            met = value <= aim if direction == "<=" else value >= aim
            print(f"{name:38} {value:9.2f} {unit:12} ({direction} {aim:g}{_mark(met)})")


def _mark(met: bool) -> str:
    return "" if met else ", missed"


if __name__ == "__main__":
    sys.exit(main())
