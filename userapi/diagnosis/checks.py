"""Checks of dependencies: what a check returns, and running several at the same time."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import psycopg2
import structlog

from userapi.infrastructure.schema_compatibility import SchemaState

log = structlog.get_logger(__name__)

# For each wait of a check: to connect, and for each reply.
CHECK_SECONDS = 1
# For all checks together.
MAX_SECONDS = 2.5


class Status(StrEnum):
    """The state of a dependency."""

    DISABLED = "disabled"
    DOWN = "down"
    READ_ONLY = "read_only"
    SKEWED = "skewed"
    UNKNOWN = "unknown"
    UNSUPPORTED = "unsupported"
    UP = "up"

    @property
    def responds(self) -> bool:
        """Return whether the dependency can be used, if only for reading."""
        return self in (Status.UP, Status.READ_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of a check. All fields after `latency_ms` describe the database."""

    status: Status
    latency_ms: float | None = None
    migration: str | None = None
    schema: SchemaState | None = None
    # By how many seconds this machine's clock is ahead of PostgreSQL's.
    clock_skew_seconds: float | None = None
    # Set only where the encoding makes the database unusable.
    encoding: str | None = None
    pending: int | None = None
    oldest_seconds: float | None = None
    worker_seen: datetime | None = None
    # Peppers that password hashes need and that are not configured.
    missing_peppers: tuple[str, ...] = ()


class DependencyDown(Exception):
    """A dependency does not respond. `reason` is the name of the error of its driver."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def run_checks(checks: Mapping[str, Callable[[], Check]]) -> dict[str, Check]:
    """Run all checks at the same time and return their results by name.

    Three servers that hang cost one time-out, not three. A check that exceeds MAX_SECONDS counts as
    down: a server that sends one byte a second never triggers the time-out of a read.
    """
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
    try:
        running = {pool.submit(_timed, name, check): name for name, check in checks.items()}
        wait(running, timeout=MAX_SECONDS)
        return {name: _result_of(name, future) for future, name in running.items()}
    finally:
        pool.shutdown(wait=False)


def _result_of(name: str, future: Future[Check]) -> Check:
    if future.done():
        return future.result()
    return _failed(name, "too slow")


def _failed(name: str, reason: str) -> Check:
    log.warning("health.check_failed", dependency=name, error=reason)
    return Check(status=Status.DOWN)


def _timed(name: str, check: Callable[[], Check]) -> Check:
    """Return the result of a check with its latency; an error of a driver means down."""
    started = time.perf_counter()
    try:
        result = check()
    except DependencyDown as exc:
        return _failed(name, exc.reason)
    except (psycopg2.Error, sqlite3.Error, OSError) as exc:
        return _failed(name, type(exc).__name__)
    if not result.status.responds:
        return result
    latency = round((time.perf_counter() - started) * 1000, 2)
    return replace(result, latency_ms=latency)
