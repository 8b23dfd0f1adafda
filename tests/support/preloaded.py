"""Starts Python programs as forks of a process that has loaded the libraries of the service.

Loading them takes more than half of the CPU time of a start. The forks run the program as
`python -m` does, in a session of their own, with the given variables and no others. Modules of the
service itself are not loaded before the fork, and neither is prometheus_client, which reads the
environment when it is imported.

Run as a script, this is the process that forks. It reads an order in each line and answers with a
process id. It leaves its children to the process that gave the order: see `adopt_orphans`.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# The other variables of this process would change the settings of the service.
INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "COVERAGE_PROCESS_START")
AT_START = ("LANG", "LC_", "LD_", "PYTHON", "TZ")
LIBRARIES = (
    *("alembic.autogenerate", "amqp", "apispec.ext.marshmallow", "argon2", "babel", "bcrypt"),
    *("cachetools", "cryptography.hazmat.primitives.serialization", "email_validator"),
    *("flask.cli", "flask_cors", "flask_jwt_extended", "flask_limiter", "flask_migrate"),
    *("flask_session", "flask_smorest", "flask_wtf", "gunicorn.app.wsgiapp"),
    *("gunicorn.workers.gthread", "kombu.transport.pyamqp", "orjson", "phonenumbers"),
    *("psycopg2.extras", "redis.sentinel", "sqlalchemy.dialects.postgresql.psycopg2"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.orm", "structlog.dev", "ua_parser"),
    *("werkzeug.test", "yaml", "zxcvbn"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A program to run, as `python -m module arguments` does; `log` receives its output."""

    python: str
    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    log: str


class ForkedProcess:
    """A process that was forked elsewhere, with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the process runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                    os.close(self._descriptor)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            ended, _, _ = select.select([self._descriptor], [], [], timeout)
            if not ended:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        # The descriptor is readable a moment before the status can be collected.
        while (code := self.poll()) is None:
            time.sleep(0.001)
        return code

    def send_signal(self, signal_number: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal_number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


AnyProcess = subprocess.Popen[bytes] | ForkedProcess


class Forker:
    """This end of the process that forks, which starts with the first order."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self, order: Order) -> AnyProcess:
        """Run the program of the order."""
        present = _variables()
        differs = _read_at_start(order.environment) != _read_at_start(present)
        # Coverage of other processes begins when their interpreter starts.
        if differs or "COVERAGE_PROCESS_START" in present or sys.platform != "linux":
            return start_interpreter(order)
        # Tests read it before the fork has opened it.
        Path(order.log).touch()
        with self._lock:
            if self._process is None:
                self._process = _start_forking(present)
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(asdict(order)) + "\n")
            self._process.stdin.flush()
            return ForkedProcess(int(self._process.stdout.readline()))


forker = Forker()


def start_interpreter(order: Order) -> subprocess.Popen[bytes]:
    """Run the program of an order in an interpreter of its own."""
    with Path(order.log).open("ab") as log:
        return subprocess.Popen(
            [order.python, "-m", order.module, *order.arguments],
            cwd=order.folder,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _variables() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1"}


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that have no effect on an interpreter that has started."""
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


def _start_forking(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    adopt_orphans()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.preloaded"],
        cwd=Path(__file__).resolve().parents[2],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose parents end. Linux only."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def main() -> None:
    """Fork for each order until the input ends."""
    for library in LIBRARIES:
        import_module(library)
    assert not [name for name in sys.modules if name.split(".")[0] == "prometheus_client"]
    gc.collect()
    gc.freeze()  # Otherwise the collector of each fork copies all pages.
    for line in sys.stdin:
        order = Order(**json.loads(line))
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            if pid := os.fork():
                os.write(writer, str(pid).encode())
                os._exit(0)  # So that the fork becomes an orphan.
            _run(order)
            return
        os.close(writer)
        pid = int(os.read(reader, 32))
        os.close(reader)
        os.waitpid(between, 0)
        print(pid, flush=True)


def _run(order: Order) -> None:
    """Become the ordered program."""
    os.setsid()
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.closerange(3, max(log, nothing) + 1)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.path[0] = order.folder
    sys.argv[1:] = order.arguments
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
