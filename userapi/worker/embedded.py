"""The worker inside the service."""

import fcntl
import threading
from typing import IO

from userapi.worker.loop import Worker

LOCK_INTERVAL_SECONDS = 1.0


class EmbeddedWorker:
    """A worker inside the service, in one of the processes that share a lock file.

    The lock ends with its process, and then another process starts its worker.
    """

    def __init__(self, worker: Worker, lock_file: IO[bytes]) -> None:
        self._worker = worker
        self._lock_file = lock_file
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._wait_for_lock, name="worker-lock", daemon=True)

    def start(self) -> None:
        """Start to wait for the lock, and return."""
        self._thread.start()

    def stop(self, *, within_seconds: float) -> None:
        """Stop the worker, if it runs in this process."""
        self._ending.set()
        self._thread.join(within_seconds)
        if self._worker.is_started:
            self._worker.stop(within_seconds=within_seconds)

    def _wait_for_lock(self) -> None:
        while not self._ending.is_set():
            if self._has_lock():
                self._worker.start()
                return
            self._ending.wait(LOCK_INTERVAL_SECONDS)

    def _has_lock(self) -> bool:
        try:
            # A lock of the process, not of the open file, which all processes inherited.
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
