"""`make guards`: removes each guard from a copy, runs its tests there, and expects them to fail.

Each run starts its own servers. A guard whose tests pass without it is not tested; the exit code is
then 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

from tests.guards.guards import GUARDS
from tests.guards.removal import Guard, GuardNotFound, file_without
from tests.support.gunicorn import REPOSITORY

PARTS = ("userapi", "tests", "migrations", "docs", "examples", "deploy", "scripts")
MAX_SECONDS = 900
FAILED_TESTS = 1  # pytest's exit code; others say that it could not run them.

_of_thread = local()


def _copy(copies: Path) -> Path:
    """Return this thread's copy of what the tests need, a folder among the copies."""
    if not hasattr(_of_thread, "folder"):
        folder = Path(tempfile.mkdtemp(dir=copies))
        for part in PARTS:
            shutil.copytree(
                REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in REPOSITORY.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        _of_thread.folder = folder
    found: Path = _of_thread.folder
    return found


def noticed(guard: Guard, copies: Path) -> tuple[bool, str]:
    """Return whether a test fails without the guard, and which test or what else happened."""
    folder = _copy(copies)
    try:
        file, without = file_without(guard, folder)
    except GuardNotFound as exc:
        return False, str(exc)
    whole = file.read_text("utf-8")
    file.write_text(without, "utf-8")
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *guard.tests],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "its tests do not end"
    finally:
        file.write_text(whole, "utf-8")
    # A broken fixture, such as a server that does not start, does not count as a failed test.
    lines = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    said = lines[0].split(" - ")[0] if lines else (run.stdout + run.stderr).strip()[-200:]
    return run.returncode == FAILED_TESTS and bool(lines), said.removeprefix("FAILED ")


def main() -> int:
    """Remove all guards one by one, or those whose rule contains a text."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards")
    parser.add_argument("--only", default="", help="part of a rule")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    guards = [guard for guard in GUARDS if arguments.only in guard.rule]
    unnoticed = 0
    with (
        tempfile.TemporaryDirectory(prefix="userapi-guards-") as copies,
        ThreadPoolExecutor(arguments.jobs) as threads,
    ):
        results = threads.map(lambda guard: noticed(guard, Path(copies)), guards)
        for guard, (was, said) in zip(guards, results, strict=True):
            unnoticed += not was
            print(f"{'ok' if was else 'NOT NOTICED':11} {guard.rule}\n{'':11} {said}", flush=True)
    print(f"\n{len(guards)} guards removed, {unnoticed} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
