"""`make bench`: runs baselines and service in turn, prints medians and ratios, writes JSON.

Takes TEST_DATABASE_URL, TEST_REDIS_URL and TEST_RABBITMQ_URL of real servers, which `make bench`
starts privately. Everything is on: limits with high numbers, logs to a file, audit. It connects to
loopback only.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import peers, report
from benchmarks.events import delivery_milliseconds, relayed_per_second
from benchmarks.floors import bcrypt_checks_per_second
from benchmarks.load import Outcome, Request, send
from benchmarks.operations import CONNECTIONS, log_ins, operations
from benchmarks.pages import page_milliseconds
from benchmarks.second_step import add_apps, second_step_milliseconds
from benchmarks.stage import (
    ADMINISTRATOR,
    API,
    PASSWORD,
    baselines,
    database_pids,
    environment_of,
    log_in,
    new_database,
    prepare,
    usernames,
    wait_for,
)
from benchmarks.steady import send_steadily
from benchmarks.storm import storm
from tests.support.gunicorn import GunicornService
from tests.support.processes import proportional_mib

DATABASE = "userapi_bench"
# The service needs more time where the answer waits for a hash.
HASHING = (report.LOG_IN, report.FIRST_STEP, report.CREATE, report.REGISTER)
# Connections that stay open are distributed over two processes at random; a ratio of rates means
# nothing if one of them idles.
MIN_BALANCE = 0.6
MAX_TRIES = 8
# How often in a round an operation and bare Flask alternate. Each time, the connections are
# distributed again.
SLICES = 3
RELAYED = 20_000
USERS_WITH_APPS = 64


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="for what waits for no hash")
    parser.add_argument("--hash-seconds", type=int, default=30, help="for what waits for bcrypt")
    parser.add_argument("--only", help="part of an operation's name")
    parser.add_argument("--peers", action="store_true", help="also measure comparable projects")
    parser.add_argument("--json", type=Path, default=Path("build/benchmark.json"))
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian package wrk)")
    database = new_database(DATABASE)
    service = GunicornService(environment_of(database))
    prepare(service, arguments.users)
    bench = Bench(service, database, arguments)
    with service:
        bench.run_rounds()
        if not arguments.only:
            bench.measure_once()
    bench.write_report()
    if arguments.peers:
        bench.measure_peers()
        bench.write_report()
    return 0


class Bench:
    """Measures the service, and keeps what it has measured."""

    def __init__(
        self, service: GunicornService, database: str, arguments: argparse.Namespace
    ) -> None:
        self._service = service
        self._database = database
        self._arguments = arguments
        self._database_pids = database_pids()
        self.rates: dict[str, list[dict[str, float]]] = {}
        self.figures: dict[str, list[float]] = {}

    def run_rounds(self) -> None:
        """Measure all rates, baselines and service in turn."""
        arguments, service = self._arguments, self._service
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            rate = bcrypt_checks_per_second(12, arguments.hash_seconds)
            self.rates.setdefault(report.BCRYPT, []).append({"per_second": rate})
            print(f"  {report.BCRYPT:38} {rate:9.1f}/s", flush=True)
            requests = operations(service, self._database)
            chosen = {name: requests[name] for name in requests if (arguments.only or "") in name}
            with baselines(self._database) as (base, pid):
                self._load(report.SELECT, base, partial(Request, path="/select", headers={}), pid)
                for name, make in chosen.items():
                    if report.is_compared_with_bare(name):
                        self._alternate(name, make, base, pid)
            for name, make in chosen.items():
                if not report.is_compared_with_bare(name):
                    self._load(name, service.base_url, make, service.pid)
            if not arguments.only:
                reads, logins = (self._latest_rate(name) for name in (report.ME, report.LOG_IN))
                read, log_in_request = requests[report.ME](), requests[report.LOG_IN]()
                seconds = arguments.hash_seconds
                storm(service, read, log_in_request, reads / 10, logins, seconds, self.figures)

    def measure_once(self) -> None:
        """Measure second steps, memory, pages, events, and the start."""
        service, figures = self._service, self.figures
        figures[report.MEMORY] = [max(proportional_mib(pid) for pid in service.worker_pids)]
        users = add_apps(service, usernames(self._database, USERS_WITH_APPS))
        figures[report.SECOND_STEP] = [
            second_step_milliseconds(service, users, self._database_pids)
        ]
        first_steps = log_ins([user.username for user in users], status=403)
        self._load(report.FIRST_STEP, service.base_url, lambda: first_steps, service.pid)
        pages = page_milliseconds(service.base_url, ADMINISTRATOR, PASSWORD)
        for name, milliseconds in pages.items():
            print(f"  page: {name:20} {milliseconds:8.1f} ms", flush=True)
        figures[report.SLOWEST_PAGE] = [max(pages.values())]
        headers = {"Authorization": f"Bearer {log_in(service).access_token}"}
        broker = {**service.environment, "RABBITMQ_URL": os.environ["TEST_RABBITMQ_URL"]}
        waits = delivery_milliseconds(broker, f"{service.base_url}{API}/users/me", headers)
        print(f"  commit to delivery: p50 {waits['p50']:.1f} ms, p95 {waits['p95']:.1f} ms")
        figures[report.DELIVERY] = [waits["p95"]]
        figures[report.EVENTS] = [relayed_per_second(broker, RELAYED) for _ in range(3)]
        for _ in range(3):
            service.stop()
            begun = time.perf_counter()
            service.launch()
            wait_for(f"{service.base_url}{API}/health/live", pause_seconds=0.01)
            figures.setdefault(report.START, []).append(time.perf_counter() - begun)

    def measure_peers(self) -> None:
        """Measure comparable projects, one after the other."""
        for peer in peers.PEERS:
            with peers.serving(peer, self._arguments.users) as served:
                for name, make in served.requests.items():
                    self._load(f"{peer.name}: {name}", served.base_url, make, served.pid)

    def write_report(self) -> None:
        """Print what was measured, and write it as JSON."""
        report.print_report(self.rates, self.figures)
        path: Path = self._arguments.json
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rates": self.rates, "figures": self.figures}, indent=2))

    def _latest_rate(self, name: str) -> float:
        return self.rates[name][-1]["per_second"]

    def _alternate(self, name: str, make: Callable[[], Request], base: str, pid: int) -> None:
        """Alternate between bare Flask and an operation.

        The speed of a shared machine changes within minutes.
        """
        bare = partial(Request, path="/bare", headers={})
        for _ in range(SLICES):
            before = self._load(report.BARE, base, bare, pid)
            row = self._load(name, self._service.base_url, make, self._service.pid)
            row[report.BESIDE] = before["per_second"]

    def _load(
        self, name: str, base: str, make: Callable[[], Request], pid: int
    ) -> dict[str, float]:
        """Send the requests of an operation, again while one worker process has most of them.

        Returns the outcome, which is kept.
        """
        hashes = name.endswith(HASHING)
        load = send_steadily if hashes else send
        for _ in range(MAX_TRIES):
            outcome = load(
                base,
                make(),
                seconds=self._arguments.hash_seconds if hashes else self._arguments.seconds,
                connections=CONNECTIONS,
                service_pids=[pid],
                database_pids=self._database_pids,
            )
            lopsided = outcome.balance < MIN_BALANCE and not hashes
            _print_outcome(name, outcome, lopsided=lopsided)
            if outcome.errors:
                raise AssertionError(f"{name} was refused {outcome.errors} times")
            if not lopsided:
                break
        row: dict[str, float] = asdict(outcome)
        self.rates.setdefault(name, []).append(row)
        return row


def _print_outcome(name: str, outcome: Outcome, *, lopsided: bool) -> None:
    print(
        f"  {name:38} {outcome.per_second:9.1f}/s  p50 {outcome.p50:8.2f} ms  "
        f"p99 {outcome.p99:8.2f} ms  CPU {outcome.cpu_ms:6.2f} + {outcome.database_cpu_ms:.2f} ms"
        + (f"  {outcome.errors} refused" if outcome.errors else "")
        + ("  (again: one worker had most of it)" if lopsided else ""),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
