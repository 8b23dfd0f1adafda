"""How the service and its dependencies are. Each check has its own connection and a short end, so
that a full pool or a hung server is told and not shared.
"""

import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import redis
import structlog
from sqlalchemy.engine import make_url

from userapi.clock import Clock
from userapi.infrastructure.database.encoding import (
    CLIENT_ENCODING,
    UnsupportedEncoding,
    require_unicode,
)
from userapi.infrastructure.deadlines import BoundedConnection
from userapi.infrastructure.redis_client import require_writable
from userapi.passwords.peppers import NEEDED, Peppers
from userapi.serving.draining import is_draining
from userapi.settings import PROJECT_ROOT, Settings

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1
# For connecting and asking together.
MAX_SECONDS = 2.5
VERSION = "1.0.0"
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"


class Status(StrEnum):
    """The state of a dependency."""

    DISABLED = "disabled"
    DOWN = "down"
    UNKNOWN = "unknown"
    UNSUPPORTED = "unsupported"
    UP = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check found."""

    status: Status
    latency_ms: float | None = None
    migration: str | None = None
    # Of a database that cannot be used because of it.
    encoding: str | None = None
    pending: int | None = None
    oldest_seconds: float | None = None
    worker_seen: datetime | None = None
    # What hashes of passwords need and is not configured.
    missing_peppers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessReport:
    """Whether requests can be served, and by what."""

    status: str
    checks: dict[str, Status]

    @property
    def is_ready(self) -> bool:
        """Return whether the database answers and is migrated."""
        return self.status != "not_ready"


class Health:
    """Asks the dependencies how they are."""

    def __init__(self, settings: Settings, clock: Clock, peppers: Peppers) -> None:
        self._settings = settings
        self._clock = clock
        self._peppers = peppers

    def summary(self) -> dict[str, Any]:
        """Return that the service answers, and which one it is."""
        return {
            "status": "healthy",
            "service": self._settings.app_name,
            "version": VERSION,
            "timestamp": self._clock.now(),
        }

    def readiness(self) -> ReadinessReport:
        """Return whether requests can be served. The database and the pepper decide it."""
        checks = self._checks()
        statuses = {name: check.status for name, check in checks.items()}
        if checks["database"].encoding is not None:
            statuses["database_encoding"] = Status.UNSUPPORTED
        statuses["password_pepper"] = _pepper_status(checks["database"])
        if statuses["password_pepper"] is not Status.UP or is_draining():
            status = "not_ready"
        elif Status.DOWN in statuses.values():
            status = "degraded"
        else:
            status = "ready"
        return ReadinessReport(status=status, checks=statuses)

    def detailed(self) -> dict[str, Any]:
        """Return the state of each component."""
        checks = self._checks()
        database = checks["database"]
        pepper = _pepper_status(database)
        if pepper is not Status.UP:
            status = "unhealthy"
        elif any(check.status is Status.DOWN for check in checks.values()):
            status = "degraded"
        else:
            status = "healthy"
        return {
            "status": status,
            "components": {
                **checks,
                "password_pepper": {"status": pepper},
                "outbox": {
                    "pending": database.pending,
                    "oldest_seconds": database.oldest_seconds,
                },
                "worker": {"last_seen": database.worker_seen},
            },
        }

    def _checks(self) -> dict[str, Check]:
        checks: dict[str, Callable[[], Check]] = {
            "database": self._check_database,
            "redis": self._check_redis,
            "rabbitmq": self._check_rabbitmq,
        }
        # Side by side: three servers that hang cost one time-out, not three. Nor is anything waited
        # for longer in all: a server that answers a byte a second never runs into a time-out.
        pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
        try:
            running = {pool.submit(_timed, name, check): name for name, check in checks.items()}
            wait(running, timeout=MAX_SECONDS)
            return {name: _found(name, future) for future, name in running.items()}
        finally:
            pool.shutdown(wait=False)

    def _check_database(self) -> Check:
        if self._settings.uses_sqlite:
            path = make_url(self._settings.database_url).database or ""
            connection: Any = sqlite3.connect(f"file:{path}?mode=ro", timeout=1, uri=True)
        else:
            url = self._settings.database_url.replace("+psycopg2", "", 1)
            try:
                connection = psycopg2.connect(
                    url,
                    connection_factory=_CheckedConnection,
                    connect_timeout=CHECK_SECONDS + 1,
                    options=f"-c statement_timeout={CHECK_SECONDS}s",
                    application_name="userapi-health",
                    client_encoding=CLIENT_ENCODING,
                )
            except UnsupportedEncoding as exc:
                return Check(status=Status.DOWN, encoding=exc.encoding)
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT version_num FROM alembic_version")
            (revision,) = cursor.fetchone() or ("none",)
            if revision != head_revision():
                return Check(status=Status.DOWN, migration=revision)
            cursor.execute(
                "SELECT COUNT(*), MIN(occurred_at) FROM (SELECT occurred_at FROM outbox_events"
                " WHERE sent_at IS NULL AND parked_at IS NULL LIMIT 100000) AS waiting"
            )
            pending, oldest = cursor.fetchone()
            cursor.execute("SELECT MAX(last_seen_at) FROM worker_heartbeats")
            (seen,) = cursor.fetchone()
            cursor.execute(NEEDED)
            missing = self._peppers.missing_of(pepper for (pepper,) in cursor.fetchall())
        finally:
            connection.close()
        oldest_at = _moment(oldest)
        age = (self._clock.now() - oldest_at).total_seconds() if oldest_at else 0.0
        return Check(
            status=Status.UP,
            migration=revision,
            pending=pending,
            oldest_seconds=round(max(age, 0.0), 3),
            worker_seen=_moment(seen),
            missing_peppers=tuple(missing),
        )

    def _check_redis(self) -> Check:
        if not self._settings.redis_url:
            return Check(status=Status.DISABLED)
        client = redis.Redis.from_url(
            self._settings.redis_url,
            socket_timeout=CHECK_SECONDS,
            socket_connect_timeout=CHECK_SECONDS,
            retry=None,
        )
        try:
            require_writable(client)
        finally:
            client.close()
        return Check(status=Status.UP)

    def _check_rabbitmq(self) -> Check:
        """Greet the broker and wait for its answer; a port that merely accepts is not up."""
        if not self._settings.rabbitmq_url:
            return Check(status=Status.DISABLED)
        parts = urlsplit(self._settings.rabbitmq_url)
        secure = parts.scheme == "amqps"
        address = (parts.hostname or "localhost", parts.port or (5671 if secure else 5672))
        with socket.create_connection(address, timeout=CHECK_SECONDS) as plain:
            connection = plain
            if secure:
                context = ssl.create_default_context()
                connection = context.wrap_socket(plain, server_hostname=address[0])
            connection.sendall(AMQP_GREETING)
            answered = connection.recv(8)
        return Check(status=Status.UP if answered else Status.DOWN)


class _CheckedConnection(BoundedConnection):
    """A connection that waits for an answer hardly longer than the server for its statement."""

    reply_seconds = CHECK_SECONDS + 0.3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect. Raises UnsupportedEncoding."""
        super().__init__(*args, **kwargs)
        require_unicode(self)


def _found(name: str, future: Future[Check]) -> Check:
    if future.done():
        return future.result()
    log.warning("health.check_failed", dependency=name, error="too slow")
    return Check(status=Status.DOWN)


def _timed(name: str, check: Callable[[], Check]) -> Check:
    begun = time.perf_counter()
    try:
        found = check()
    except (psycopg2.Error, sqlite3.Error, redis.RedisError, OSError) as exc:
        log.warning("health.check_failed", dependency=name, error=type(exc).__name__)
        return Check(status=Status.DOWN)
    if found.status is not Status.UP:
        return found
    latency = round((time.perf_counter() - begun) * 1000, 2)
    return replace(found, latency_ms=latency)


def _pepper_status(database: Check) -> Status:
    """Return whether all peppers are known that the hashes in the database need."""
    if database.status is not Status.UP:
        return Status.DOWN
    return Status.UNKNOWN if database.missing_peppers else Status.UP


@lru_cache(maxsize=1)
def head_revision() -> str | None:
    """Return the revision that the migrations of this release end at."""
    # Imported here because most commands do not check the database.
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(PROJECT_ROOT / "migrations")).get_current_head()


def _moment(value: Any) -> datetime | None:
    """Return a moment that a driver gave; SQLite gives text in UTC."""
    if isinstance(value, str):
        return datetime.fromisoformat(value + "+00:00")
    if isinstance(value, datetime):
        return value
    return None
