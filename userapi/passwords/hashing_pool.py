"""The hashing gate: a bounded place where passwords are hashed, apart from the request threads.

A hash takes a quarter of a second of a core. Here at most one a core runs, at a lower priority, so
that reads in the same process stay quick while many log in; and at most so many wait.
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

# Added to the niceness of the process: the kernel then weighs a hash at a tenth of a request.
LOWER_PRIORITY = 10
LOWEST_PRIORITY = 19
BACKGROUND_QUEUE = 16
# Request threads that hashing may hold are those that wait and these; gunicorn.conf.py has more.
MAX_THREADS = 8


class Busy(Unavailable):
    """More log-ins wait for a hash than may."""

    code = "busy"
    title = "Too many simultaneous log-ins. Try again in a moment."


class HashingPool:
    """Runs hashing functions on a few threads of its own; callers wait for the result."""

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
        """`observe` is given the seconds of each hash, `observe_wait` those spent before it;
        `track` makes what is held open while a caller waits or is served.

        Both are called in the caller's thread: one at a lower priority would hold their locks long.
        """
        self._threads = threads or min(_usable_cores(), MAX_THREADS)
        self._lowered_by = lowered_by
        self._limit = queue_limit + self._threads
        self._observe = observe
        self._observe_wait = observe_wait
        self._track = track
        self._begin_anew()
        _gates.add(self)

    @property
    def threads(self) -> int:
        """Return how many hashes run at once."""
        return self._threads

    @property
    def waiting(self) -> int:
        """Return how many callers wait for a thread."""
        return max(0, self._inside - self._threads)

    def require_room(self) -> None:
        """Raise Busy where `run` would, before anything else is spent on a log-in."""
        if self._inside >= self._limit:
            raise Busy(retry_after=1)

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns. Raises what it raises, and Busy, at once, when full."""
        asked = time.perf_counter()
        executor = self._enter()
        try:
            with self._track():
                result, begun, ended = executor.submit(_timed, function).result()
        finally:
            with self._lock:
                self._inside -= 1
        if self._observe is not None:
            self._observe(ended - begun)
        if self._observe_wait is not None:
            self._observe_wait(begun - asked)
        return result

    def _enter(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._inside >= self._limit:
                raise Busy(retry_after=1)
            # Made at the first use: Gunicorn loads the application before it forks its workers.
            if self._executor is None:
                self._executor = ThreadPoolExecutor(
                    self._threads,
                    thread_name_prefix="hashing",
                    initializer=_lower_priority,
                    initargs=(self._lowered_by,),
                )
            self._inside += 1
            return self._executor

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._executor = None


def _timed(function: Callable[[], Result]) -> tuple[Result, float, float]:
    begun = time.perf_counter()
    return function(), begun, time.perf_counter()


def background_pool() -> HashingPool:
    """Return a gate for hashes that nobody waits for: log-ins come first, and keep half the cores.

    At the lowest priority the kernel weighs a hash at a seventh of one for a log-in.
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
    """Give way to request threads. On Linux a priority belongs to a thread (setpriority(2))."""
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
        pass  # A sandbox may forbid it; hashing then merely competes as an equal.


_gates: "weakref.WeakSet[HashingPool]" = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    # Neither threads nor the callers that they served survive a fork, and the lock may be taken.
    for gate in _gates:
        gate._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
