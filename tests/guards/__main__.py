"""`make guards`: removes each guard from a copy, runs its tests there, and expects them to fail.

Each job has its own copy and servers. A guard whose tests pass without it is not tested; the exit
code is then 1. Each result is kept in `build/guards.jsonl`: on unchanged code a further run leaves
out the guards that a test has noticed, and on changed code it begins with the test that failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from importlib.util import cache_from_source
from pathlib import Path
from queue import Queue

from tests.guards.guards import GUARDS
from tests.guards.removal import Guard, GuardNotFound, file_without
from tests.guards.results import Result, Results, state_of
from tests.support.gunicorn import REPOSITORY
from tests.support.servers import DATABASE_URL, REDIS_URL, Servers

PARTS = ("userapi", "tests", "migrations", "docs", "client", "deploy", "scripts")
RESULTS = REPOSITORY / "build" / "guards.jsonl"
MAX_SECONDS = 900
FAILED_TESTS = 1  # pytest's exit code; others say that it could not run them.
NO_SUCH_TEST = 4


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

    def noticed(self, guard: Guard, *, first: str | None = None) -> tuple[bool, str]:
        """Return whether a test fails without the guard, and which test or what else happened.

        The test `first`, if it still exists, runs before those of the guard.
        """
        try:
            file, without = file_without(guard, self.folder)
        except GuardNotFound as exc:
            return False, str(exc)
        whole = file.read_text("utf-8")
        _write(file, without)
        try:
            run = self._run([*([first] if first else []), *guard.tests])
            if first and run.returncode == NO_SUCH_TEST:
                run = self._run(guard.tests)
        except subprocess.TimeoutExpired:
            return False, "its tests do not end"
        finally:
            _write(file, whole)
        # A broken fixture, such as a server that does not start, does not count as a failed test.
        lines = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
        said = lines[0].split(" - ")[0] if lines else (run.stdout + run.stderr).strip()[-200:]
        return run.returncode == FAILED_TESTS and bool(lines), said.removeprefix("FAILED ")

    def _run(self, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
        options = ("-x", "-q", "-p", "no:cacheprovider", "-m", "")
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )


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
    parser.add_argument("--results", type=Path, default=RESULTS, help="file with the results")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    state = state_of(REPOSITORY / part for part in PARTS)
    guards = [guard for guard in GUARDS if arguments.only in guard.rule]
    left = [guard for guard in guards if not results.is_noticed(guard.rule, state)]
    if len(left) < len(guards):
        print(f"{len(guards) - len(left)} guards were noticed by an earlier run on this code")
    unnoticed = 0
    benches: Queue[Bench] = Queue()

    def result_of(guard: Guard) -> Result:
        bench = benches.get()
        began = time.monotonic()
        try:
            noticed, said = bench.noticed(guard, first=results.test_that_failed(guard.rule))
        finally:
            benches.put(bench)
        seconds = round(time.monotonic() - began, 1)
        return Result(rule=guard.rule, state=state, noticed=noticed, said=said, seconds=seconds)

    with ExitStack() as stack:
        copies = stack.enter_context(tempfile.TemporaryDirectory(prefix="userapi-guards-"))
        for _ in range(min(arguments.jobs, len(left))):
            bench = Bench(Path(tempfile.mkdtemp(dir=copies)))
            stack.callback(bench.close)
            benches.put(bench)
        threads = stack.enter_context(ThreadPoolExecutor(arguments.jobs))
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        for done in as_completed([threads.submit(result_of, guard) for guard in left]):
            result = done.result()
            results.add(result)
            unnoticed += not result.noticed
            verdict = "ok" if result.noticed else "NOT NOTICED"
            print(f"{verdict:11} {result.rule}\n{'':11} {result.said}", flush=True)
    print(f"\n{len(left)} guards removed, {unnoticed} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
