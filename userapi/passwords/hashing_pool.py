"""The hashing pool: passwords are hashed on a bounded number of threads, not on request threads.

A hash takes a quarter of a second of a core. At most one runs on each core, at a lower priority, so
that reads in the same process stay fast during many log-ins. The queue is bounded, too.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from userapi.errors import Unavailable

Result = TypeVar("Result")

# Added to the niceness of the process: the kernel gives a hash a tenth of the share of a request.
LOWER_PRIORITY = 10
LOWEST_PRIORITY = 19
BACKGROUND_QUEUE = 16
# Hashing can block as many request threads as this plus the queue; gunicorn.conf.py has more.
MAX_THREADS = 8


class Busy(Unavailable):
    """The queue for hashing is full."""

    code = "busy"
    title = "Too many simultaneous log-ins. Try again in a moment."


class HashingPool:
    """Runs hashing functions on its own threads; callers wait for the result."""

    _executor: ThreadPoolExecutor | None

    def __init__(
        self,
        *,
        queue_limit: int,
        threads: int | None = None,
        lowered_by: int = LOWER_PRIORITY,
        observe: Callable[[float], None] | None = None,
        observe_wait: Callable[[float], None] | None = None,
        track: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`observe` receives the seconds of each hash, and `observe_wait` the seconds before it.

        `track` returns a context manager that is open while a caller waits. All three run in the
        thread of the caller: threads with a lower priority would hold their locks for long.
        """
        self._threads = threads or min(_usable_cores(), MAX_THREADS)
        self._lowered_by = lowered_by
        self._limit = queue_limit + self._threads
        self._observe = observe
        self._observe_wait = observe_wait
        self._track = track
        self._reset()
        _pools.add(self)

    @property
    def threads(self) -> int:
        """Return how many hashes run concurrently."""
        return self._threads

    @property
    def waiting(self) -> int:
        """Return how many callers wait for a thread."""
        return max(0, self._callers - self._threads)

    def require_room(self) -> None:
        """Raise Busy if `run` would, before a log-in causes any other work."""
        if self._callers >= self._limit:
            raise Busy(retry_after=1)

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns. Raises what it raises, and Busy if the queue is full."""
        queued = time.perf_counter()
        executor = self._enter()
        try:
            with self._track():
                result, begun, ended = executor.submit(_timed, function).result()
        finally:
            with self._lock:
                self._callers -= 1
        if self._observe is not None:
            self._observe(ended - begun)
        if self._observe_wait is not None:
            self._observe_wait(begun - queued)
        return result

    def _enter(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._callers >= self._limit:
                raise Busy(retry_after=1)
            # Created on first use: Gunicorn loads the application before it forks its workers.
            if self._executor is None:
                self._executor = ThreadPoolExecutor(
                    self._threads,
                    thread_name_prefix="hashing",
                    initializer=_lower_priority,
                    initargs=(self._lowered_by,),
                )
            self._callers += 1
            return self._executor

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._executor = None


def _timed(function: Callable[[], Result]) -> tuple[Result, float, float]:
    begun = time.perf_counter()
    return function(), begun, time.perf_counter()


def background_pool() -> HashingPool:
    """Return a pool for imports, which leaves half the cores to log-ins.

    At the lowest priority the kernel gives a hash a seventh of the share of one for a log-in.
    """
    return HashingPool(
        queue_limit=BACKGROUND_QUEUE,
        threads=max(1, _usable_cores() // 2),
        lowered_by=LOWEST_PRIORITY,
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _lower_priority(lowered_by: int) -> None:
    """Lower the priority of this thread. On Linux it belongs to the thread (setpriority(2))."""
    if not hasattr(os, "setpriority"):
        return
    try:
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(
            os.PRIO_PROCESS,
            threading.get_native_id(),
            min(own + lowered_by, LOWEST_PRIORITY),
        )
    except OSError:
        pass  # A sandbox can forbid it. Hashing then has the priority of requests.


_pools: "weakref.WeakSet[HashingPool]" = weakref.WeakSet()


def _reset_after_fork() -> None:
    # The child process has neither the threads nor their callers, and the lock may be held.
    for pool in _pools:
        pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
