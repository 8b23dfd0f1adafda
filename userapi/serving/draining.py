"""Draining: the service reports "not ready" for a while before it stops accepting connections.

Gunicorn's master sets the flag in memory that it shares with the workers, which it forks later.
"""

import mmap
import signal
from types import FrameType
from typing import Any

_flag = mmap.mmap(-1, 1)


def is_draining() -> bool:
    """Return whether the service is about to stop."""
    return _flag[0] != 0


def drain_before_stopping(seconds: int) -> None:
    """Delay the current handler of SIGTERM by `seconds`. A second SIGTERM stops immediately."""
    stop: Any = signal.getsignal(signal.SIGTERM)

    def begin(number: int, frame: FrameType | None) -> None:
        ends_now = is_draining() or not seconds
        _flag[0] = 1
        # A timer that rings during the shutdown would end the process by SIGALRM.
        signal.setitimer(signal.ITIMER_REAL, 0 if ends_now else seconds)
        if ends_now:
            stop(number, frame)

    def end(_number: int, frame: FrameType | None) -> None:
        stop(signal.SIGTERM, frame)

    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, begin)
