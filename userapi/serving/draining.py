"""Draining: the service answers "not ready" for a while before it stops accepting connections.

Gunicorn's master sets the flag, and all of its workers see it: the memory is shared with every
process that is forked later.
"""

import mmap
import signal
from types import FrameType
from typing import Any

_flag = mmap.mmap(-1, 1)


def is_draining() -> bool:
    """Return whether this service is about to stop."""
    return _flag[0] != 0


def drain_before_stopping(seconds: int) -> None:
    """Delay the present handler of SIGTERM by `seconds`; a second SIGTERM does not wait."""
    stop: Any = signal.getsignal(signal.SIGTERM)

    def begin(number: int, frame: FrameType | None) -> None:
        if is_draining() or not seconds:
            stop(number, frame)
        _flag[0] = 1
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(_number: int, frame: FrameType | None) -> None:
        stop(signal.SIGTERM, frame)

    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, begin)
