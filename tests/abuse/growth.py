"""Resources of the service: memory and open files of its workers, temporary files, Redis keys."""

import statistics
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import redis

from tests.support.gunicorn import GunicornService
from tests.support.processes import open_files, proportional_mib

SAMPLE_SECONDS = 5.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One sample. Memory is the proportional set size of the largest worker, in MiB."""

    worker_mib: float
    open_files: int
    temporary_mib: float
    redis_keys: int
    redis_mib: float


# By how much the median of the last third may exceed that of the second third. The first third is
# left out: caches fill, and the allocator keeps what the first peak needed.
ALLOWED_GROWTH = Holding(
    worker_mib=8.0, open_files=20, temporary_mib=1.0, redis_keys=200, redis_mib=2.0
)


class GrowthSampler:
    """Samples the resources of the service, on a thread, until it is stopped."""

    def __init__(self, service: GunicornService, redis_url: str) -> None:
        self.samples: list[Holding] = []
        self._service = service
        self._redis = redis.Redis.from_url(redis_url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_over, daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()
        self._redis.close()

    def take(self) -> Holding:
        """Return the current resources of the service."""
        workers = self._service.worker_pids
        information = self._redis.info("memory")
        return Holding(
            worker_mib=max(proportional_mib(pid) for pid in workers),
            open_files=sum(open_files(pid) for pid in workers),
            temporary_mib=_size_mib(Path(self._service.environment["TMPDIR"])),
            redis_keys=int(self._redis.dbsize()),
            redis_mib=information["used_memory_dataset"] / MIB,
        )

    def take_last(self) -> Holding:
        """Return the last sample that was taken."""
        return self.samples[-1]

    def growth(self) -> Holding:
        """Return the growth from the second third of the samples to the last."""
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        return Holding(
            **{
                name: type(getattr(ALLOWED_GROWTH, name))(
                    statistics.median(getattr(sample, name) for sample in last)
                    - statistics.median(getattr(sample, name) for sample in middle)
                )
                for name in asdict(ALLOWED_GROWTH)
            }
        )

    def _sample_until_over(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append(self.take())


def _size_mib(folder: Path) -> float:
    """Return the size of what is below a folder; the log of the service does not count."""
    size = 0
    for file in folder.rglob("*"):
        try:
            size += file.stat().st_size if file.is_file() and file.suffix != ".log" else 0
        except FileNotFoundError:
            continue  # Removed meanwhile.
    return size / MIB
