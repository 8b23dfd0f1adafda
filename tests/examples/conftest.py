"""The programs of the guides, run as a reader would run them."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.guardian import guardian
from tests.support.gunicorn import REPOSITORY, service_environment
from tests.support.servers import end_process

ADMINISTRATOR = "admin"
PASSWORD = "violet-harbour-93-lantern"
FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4", "RATE_LIMIT_ENABLED": "false"}

StartProgram = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    """Return a function that starts a program of `examples/` with these variables and no others."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, **environment: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "examples" / name)],
                env=service_environment(environment),
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian.watch(process.pid, ended_by=signal.SIGKILL)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            end_process(process, signal.SIGKILL)
