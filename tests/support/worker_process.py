"""`flask worker` as a separate process."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.guardian import guardian
from tests.support.gunicorn import (
    PRESENT_RELEASE,
    START_TIMEOUT_SECONDS,
    STOP_TIMEOUT_SECONDS,
    Release,
    service_environment,
)


class WorkerProcess:
    """The worker with the given variables and no others, and with options of the command."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *options: str,
        release: Release = PRESENT_RELEASE,
    ) -> None:
        self.log = log
        self.process = release.start(
            *("flask", "worker", *options), environment=service_environment(environment), log=log
        )
        guardian.watch(self.process.pid, ended_by=signal.SIGKILL)

    def wait_until_started(self) -> None:
        """Wait until all tasks run."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.has_logged("worker.started"):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def has_logged(self, message: str) -> bool:
        """Return whether the log of the worker contains this."""
        return message in self.log.read_text("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        """Return whether the process exists."""
        return self.process.poll() is None

    def end(self, signal_number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signal_number)
        code = self.process.wait(STOP_TIMEOUT_SECONDS)
        guardian.release(self.process.pid)
        return code
