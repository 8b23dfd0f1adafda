"""`make bench-versions`: the time of a request, compared with that of an earlier commit.

Both versions serve requests within processes of their own, without Gunicorn, on the same PostgreSQL
and Redis. Small batches alternate between them, and the least time of each counts: other processes
only ever add time. Prints the wall time and the CPU time of one request in microseconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from benchmarks.in_process import READS, REFRESH
from tests.support.gunicorn import REPOSITORY

PASSWORD = "violet-harbour-93-lantern"
UNLIMITED = "900000000/minute"
WARM_UP = 300


@dataclass
class Version:
    """A version of the application in a process of its own."""

    name: str
    process: "subprocess.Popen[str]"
    least: dict[str, tuple[float, float]] = field(default_factory=dict)

    def measure(self, operation: str, requests: int) -> None:
        """Send a batch, and keep its times if they are the least."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps((operation, requests)) + "\n")
        self.process.stdin.flush()
        wall, cpu = json.loads(self.process.stdout.readline())
        before = self.least.get(operation, (wall, cpu))
        self.least[operation] = min(wall, before[0]), min(cpu, before[1])


def main() -> None:
    """Compare this version with another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions")
    parser.add_argument("before", help="the commit to compare with")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--requests", type=int, default=40, help="in a batch")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--only", default="", help="part of an operation's name")
    arguments = parser.parse_args()
    operations = [name for name in (*READS, REFRESH) if arguments.only in name]
    with ExitStack() as stack:
        other = stack.enter_context(checked_out(arguments.before))
        versions = [
            stack.enter_context(_serving("before", other, arguments.users)),
            stack.enter_context(_serving("now", REPOSITORY, arguments.users)),
        ]
        for operation in operations:
            for version in versions:
                version.measure(operation, WARM_UP)
                version.least.clear()
            for _ in range(arguments.batches):
                for version in versions:
                    version.measure(operation, arguments.requests)
            before, now = (version.least[operation] for version in versions)
            print(
                f"{operation:20} {before[0]:7.0f} → {now[0]:5.0f} µs ({now[0] / before[0]:.2f})"
                f"   CPU {before[1]:5.0f} → {now[1]:5.0f} µs ({now[1] / before[1]:.2f})",
                flush=True,
            )


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder of its own."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "before"
        subprocess.run([*git, "add", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


@contextmanager
def _serving(name: str, folder: Path, users: int) -> Iterator[Version]:
    """Prepare a database for the version in a folder, and start its process."""
    with tempfile.TemporaryDirectory() as instance:
        environment = {
            **os.environ,
            "ENVIRONMENT": "testing",
            "INSTANCE_DIR": instance,
            "DATABASE_URL": _new_database(f"userapi_{name}"),
            "REDIS_URL": os.environ["TEST_REDIS_URL"],
            "LOG_FILE": f"{instance}/service.log",
            "PASSWORD_HASH_ROUNDS": "4",
            "RATE_LIMIT_DEFAULT": UNLIMITED,
            "RATE_LIMIT_REFRESH": UNLIMITED,
            "BENCHMARK_PASSWORD": PASSWORD,
        }
        _prepare(folder, environment, users)
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "benchmarks" / "in_process.py")],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Version(name, process)
        finally:
            process.terminate()
            process.wait(20)


def _new_database(name: str) -> str:
    server = os.environ["TEST_DATABASE_URL"].replace("+psycopg2", "")
    connection = psycopg2.connect(server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def _prepare(folder: Path, environment: Mapping[str, str], users: int) -> None:
    admin = ["--username", "admin", "--email", "admin@example.com", "--password-stdin"]
    for arguments in (
        ["db", "upgrade"],
        ["users", "create-admin", *admin],
        ["seed", "--users", str(users), "--fixed", "--password-stdin"],
    ):
        subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=folder,
            input=PASSWORD + "\n",
            text=True,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()
