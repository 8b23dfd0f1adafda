"""Waiting for other threads and processes, and durations on a machine that does other work, too."""

import math
import time
from collections.abc import Callable

# Only a test that fails waits for so long. A busy machine may need minutes where an idle one needs
# seconds, so no test relies on less.
PATIENCE_SECONDS = 60.0
ATTEMPTS = 8
MIN_PAUSE_SECONDS = 0.005
MAX_PAUSE_SECONDS = 0.05


def wait_until(happened: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as it has happened. Raises AssertionError after so many seconds.

    The pauses between the checks grow: a long wait leaves the processors to what it waits for.
    """
    deadline = time.monotonic() + seconds
    pause = MIN_PAUSE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
        pause = min(pause * 1.2, MAX_PAUSE_SECONDS)


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long this takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def least(measure: Callable[[], float], *, below: float) -> float:
    """Return the least of several measurements; measure again while none is below the bound.

    Other work on the machine only ever adds to a duration. What exceeds its bound by itself does so
    in every measurement.
    """
    found = measure()
    for _ in range(ATTEMPTS - 1):
        if found < below:
            break
        found = min(found, measure())
    return found


def least_seconds(work: Callable[[], object], *, below: float) -> float:
    """Return how long this takes at least, by the rule of `least`."""
    return least(lambda: seconds_of(work), below=below)


def least_ratio(
    measure: Callable[[], float], reference: Callable[[], float], *, below: float
) -> float:
    """Return the least measurement divided by the least reference, both measured in turn.

    Measures again while the ratio is not below the bound, for the reason of `least`.
    """
    found, compared = measure(), reference()
    for _ in range(ATTEMPTS - 1):
        if found / compared < below:
            break
        found, compared = min(found, measure()), min(compared, reference())
    return found / compared


def possible_countdown(total: int, *, began: float) -> range:
    """Return what a countdown of whole seconds may show now if it began at `began` or later.

    `began` is a time of `time.monotonic`. A busy machine may have taken seconds since.
    """
    return range(total - math.ceil(time.monotonic() - began), total + 1)
