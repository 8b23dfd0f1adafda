"""A test run that is killed must leave neither servers nor directories behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.guardian import family, freeze, is_alive, send

REPOSITORY = Path(__file__).resolve().parents[2]
# Prints the ids of a child that ignores SIGTERM and of its child, and waits to be killed.
RUN = """
import signal, subprocess, sys, time
from pathlib import Path
from tests.support.guardian import guardian
stubborn = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
child = subprocess.Popen(
    ["sh", "-c", stubborn], stdout=subprocess.PIPE, text=True, start_new_session=True
)
guardian.watch(child.pid, ended_by=signal.Signals[sys.argv[2]])
guardian.remove(Path(sys.argv[1]))
print(child.pid, child.stdout.readline(), flush=True)
time.sleep(60)
"""


def _wait_until_gone(pids: list[int], *, timeout_seconds: float) -> list[int]:
    deadline = time.monotonic() + timeout_seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


@pytest.mark.thorough
@pytest.mark.parametrize("ended_by", ["SIGKILL", "SIGTERM"])
def test_a_killed_run_stops_the_processes_that_it_started(tmp_path: Path, ended_by: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(directory), ended_by],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    with run.stdout:
        started = [int(pid) for pid in run.stdout.readline().split()]
    assert len(started) == 2
    assert all(is_alive(pid) for pid in started)

    run.send_signal(signal.SIGKILL)
    run.wait()

    assert _wait_until_gone(started, timeout_seconds=10) == []
    deadline = time.monotonic() + 5
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not directory.exists()


def test_a_family_is_a_process_and_all_its_descendants() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & sh -c 'sleep 60 & echo ready; wait' & wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        members = freeze(process.pid)

        assert members[0] == process.pid
        assert len(members) == 4
        assert sorted(members) == sorted(family(process.pid))
        send(members, signal.SIGKILL)
    assert _wait_until_gone(members, timeout_seconds=5) == []
