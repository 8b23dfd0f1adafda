"""Memory, files and connections of the service, sampled during the trial, and their growth."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg2
import redis

from tests.support.processes import open_files, proportional_mib

SAMPLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Growth:
    """The values of one measure at the first and the last sample, and its slope.

    The slope is the growth from the end of the first third, which caches need to fill, to the end.
    """

    name: str
    first: float
    last: float
    slope: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.name:28} {self.first:>9.1f} {self.last:>9.1f} {self.slope:>9.1f}"
            f" {self.allowed:>9.1f}"
        )


class Sampler:
    """Samples several measures on a thread."""

    def __init__(self, measures: Mapping[str, Callable[[], float]]) -> None:
        self._measures = measures
        self._moments: list[float] = []
        self._samples: dict[str, list[float]] = {name: [] for name in measures}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()

    def growth(self, name: str, allowed: float) -> Growth:
        """Return how much a measure has grown. Needs six samples."""
        values, start = self._samples[name], len(self._moments) // 3
        moments = self._moments[start:]
        line = statistics.linear_regression(moments, values[start:])
        slope = line.slope * (moments[-1] - moments[0])
        return Growth(name, values[0], values[-1], slope, allowed)

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            try:
                sample = {name: measure() for name, measure in self._measures.items()}
            except (OSError, redis.RedisError, psycopg2.Error):
                continue  # A server is being restarted.
            self._moments.append(time.monotonic())
            for name, value in sample.items():
                self._samples[name].append(value)


def memory_of(pids: Callable[[], list[int]]) -> Callable[[], float]:
    """Return a measure: the proportional set size of the largest process, in MiB."""
    return lambda: max(proportional_mib(pid) for pid in pids())


def files_of(pids: Callable[[], list[int]]) -> Callable[[], float]:
    """Return a measure: the open files of processes."""
    return lambda: sum(open_files(pid) for pid in pids())


def count_in(database_url: str, query: str) -> Callable[[], float]:
    """Return a measure: a number that a query returns."""

    def count() -> float:
        with closing(psycopg2.connect(database_url)) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            (number,) = cursor.fetchone() or (0,)
        return float(number)

    return count


def keys_in(redis_url: str) -> Callable[[], float]:
    """Return a measure: the number of keys in Redis."""

    def count() -> float:
        with closing(redis.Redis.from_url(redis_url)) as client:
            return float(client.dbsize())

    return count
