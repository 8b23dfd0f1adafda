"""`make guards`: removes each guard from a copy, runs its tests there, and expects them to fail.

Each job has its own copy and servers. A guard whose tests pass without it is not tested; the exit
code is then 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import cache_from_source
from pathlib import Path
from queue import Queue

from tests.guards.guards import GUARDS
from tests.guards.removal import Guard, GuardNotFound, file_without
from tests.support.gunicorn import REPOSITORY
from tests.support.servers import DATABASE_URL, REDIS_URL, Servers

PARTS = ("userapi", "tests", "migrations", "docs", "client", "deploy", "scripts")
MAX_SECONDS = 900
FAILED_TESTS = 1  # pytest's exit code; others say that it could not run them.


class Bench:
    """A copy of what the tests need, with its own PostgreSQL and Redis, for one guard at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers = Servers()
        for part in PARTS:
            shutil.copytree(
                REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in REPOSITORY.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        self._environment = {**os.environ, **self._servers.launch(DATABASE_URL, REDIS_URL)}
        # Without compiled modules each run would compile them all.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._servers.wait()

    def close(self) -> None:
        """End the servers."""
        self._servers.stop()

    def noticed(self, guard: Guard) -> tuple[bool, str]:
        """Return whether a test fails without the guard, and which test or what else happened."""
        try:
            file, without = file_without(guard, self.folder)
        except GuardNotFound as exc:
            return False, str(exc)
        whole = file.read_text("utf-8")
        _write(file, without)
        try:
            run = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-m",
                    "",
                    *guard.tests,
                ],
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=MAX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, "its tests do not end"
        finally:
            _write(file, whole)
        # A broken fixture, such as a server that does not start, does not count as a failed test.
        lines = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
        said = lines[0].split(" - ")[0] if lines else (run.stdout + run.stderr).strip()[-200:]
        return run.returncode == FAILED_TESTS and bool(lines), said.removeprefix("FAILED ")


def _write(file: Path, text: str) -> None:
    """Write a module and remove its compiled form, which Python compares by seconds and size."""
    file.write_text(text, "utf-8")
    if file.suffix == ".py":
        Path(cache_from_source(str(file))).unlink(missing_ok=True)


def main() -> int:
    """Remove all guards one by one, or those whose rule contains a text."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards")
    parser.add_argument("--only", default="", help="part of a rule")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    guards = [guard for guard in GUARDS if arguments.only in guard.rule]
    unnoticed = 0
    benches: Queue[Bench] = Queue()

    def noticed(guard: Guard) -> tuple[bool, str]:
        bench = benches.get()
        try:
            return bench.noticed(guard)
        finally:
            benches.put(bench)

    with ExitStack() as stack:
        copies = stack.enter_context(tempfile.TemporaryDirectory(prefix="userapi-guards-"))
        for _ in range(arguments.jobs):
            bench = Bench(Path(tempfile.mkdtemp(dir=copies)))
            stack.callback(bench.close)
            benches.put(bench)
        threads = stack.enter_context(ThreadPoolExecutor(arguments.jobs))
        for guard, (was, said) in zip(guards, threads.map(noticed, guards), strict=True):
            unnoticed += not was
            print(f"{'ok' if was else 'NOT NOTICED':11} {guard.rule}\n{'':11} {said}", flush=True)
    print(f"\n{len(guards)} guards removed, {unnoticed} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
