"""What Prometheus is told: the names, their labels, and the figures that the database knows.

Label values come from closed sets, so no caller can add a series. With several Gunicorn workers
each process writes its counts to a file of its own, and the scrape adds them up.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from psycopg2.errors import QueryCanceled
from sqlalchemy import Connection, Engine, event, func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from userapi.accounts.import_jobs import unfinished_imports
from userapi.audit.seals import AuditSeals
from userapi.clock import Clock
from userapi.events.models import OutboxEvent, PublishedEvents
from userapi.health import Health, Status
from userapi.infrastructure.database import counting, reading, statement_timeout
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.infrastructure.user_counts import UserCountKind, counts_of
from userapi.mail.models import OutgoingMail
from userapi.passwords.peppers import COUNTED_UP_TO, Peppers
from userapi.sessions.service import Sessions

log = structlog.get_logger(__name__)

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HASH_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
# Users are counted as they change, sessions and events by indexes alone; each figure for no more
# than a fiftieth of the time.
FIGURES_KEPT_SECONDS = 1.0
KEPT_FOR_TIMES = 50
FIGURE_SECONDS = 1.0
DEPENDENCIES_KEPT_SECONDS = 2.0

_LENT = "userapi.lent"


class Metrics:
    """The metrics that code counts up. One instance for each application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flask_http_request_total",
            "HTTP requests",
            ("method", "endpoint", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "flask_http_request_duration_seconds",
            "HTTP request duration in seconds",
            ("method", "endpoint", "status"),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.logins = Counter(
            "auth_logins_total", "Log-ins by outcome", ("outcome",), registry=self.registry
        )
        self.refreshes = Counter(
            "auth_refreshes_total", "Refreshes by outcome", ("outcome",), registry=self.registry
        )
        self.lockouts = Counter(
            "auth_lockouts_total", "Accounts locked after failures", registry=self.registry
        )
        self.rate_limited = Counter(
            "rate_limited_total",
            "Requests over a rate limit",
            ("endpoint",),
            registry=self.registry,
        )
        self.hash_seconds = Histogram(
            "password_hash_seconds",
            "Seconds that a password hash took",
            buckets=HASH_BUCKETS,
            registry=self.registry,
        )
        self.hash_wait_seconds = Histogram(
            "password_hash_wait_seconds",
            "Seconds that a log-in waited for its hash",
            buckets=HASH_BUCKETS,
            registry=self.registry,
        )
        self.hash_queue = Gauge(
            "password_hash_queue",
            "Log-ins that wait for a hash or are being hashed",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.pool = Gauge(
            "db_pool_connections",
            "Database connections by state",
            ("state",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )

    def watch_pool(self, engine: Engine) -> None:
        """Count the connections of a pool as they come, are lent, come back and go."""
        lent, idle = self.pool.labels("in_use"), self.pool.labels("idle")

        @event.listens_for(engine, "connect")
        def opened(_connection: object, _record: object) -> None:
            idle.inc()

        @event.listens_for(engine, "checkout")
        def lend(_connection: object, record: Any, _proxy: object) -> None:
            record.record_info[_LENT] = True
            lent.inc()
            idle.dec()

        # One that was found broken comes back, too; it was closed before. So does the place of one
        # that could not be made: nobody was lent that.
        @event.listens_for(engine, "checkin")
        def give_back(_connection: object, record: Any) -> None:
            if record.record_info.pop(_LENT, False):
                lent.dec()
                idle.inc()

        @event.listens_for(engine, "close")
        def closed(_connection: object, _record: object) -> None:
            idle.dec()

        @event.listens_for(engine, "detach")
        def detached(_connection: object, record: Any) -> None:
            record.record_info.pop(_LENT, None)
            lent.dec()


class Figures:
    """Figures that the database and the dependencies know, asked for when Prometheus scrapes.

    Kept for a moment, those that took long for longer, and asked for by one scrape at a time. A
    scrape never fails because of them, it goes without those that cannot be had.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        health: Health,
        sessions: Sessions,
        seals: AuditSeals,
        peppers: Peppers,
    ) -> None:
        self._clock = clock
        self._health = health
        self._sessions = sessions
        self._seals = seals
        self._peppers = peppers
        # For as long as is promised, however long a server that is away let itself be waited for.
        self._dependencies = _Kept(self._ask_dependencies, DEPENDENCIES_KEPT_SECONDS)
        self._counts = [
            _Kept(partial(_counted, count), FIGURES_KEPT_SECONDS, times=KEPT_FOR_TIMES)
            for count in (
                self._users,
                self._active_sessions,
                self._outbox,
                self._imports,
                self._mails,
                self._worker,
                self._seal_keys,
                self._password_hashes,
            )
        ]

    def collect(self) -> Iterator[Metric]:
        """Return the figures, for prometheus_client."""
        dependencies = self._dependencies.get()
        yield from dependencies
        if not any(
            sample.value == 1.0
            for metric in dependencies
            for sample in metric.samples
            if sample.labels == {"dependency": "database"}
        ):
            return
        try:
            for count in self._counts:
                yield from count.get()
            yield from self._published()
        except SQLAlchemyError as exc:
            # It has gone since; whatever is counted next would wait for it as well.
            log.warning("metrics.figures_missing", error=type(exc).__name__)

    def _ask_dependencies(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "dependency_up", "Whether a dependency answers", labels=["dependency"]
        )
        for name, status in self._health.readiness().checks.items():
            if name != "password_pepper" and status in (Status.UP, Status.DOWN):
                up.add_metric([name], 1.0 if status is Status.UP else 0.0)
        yield up

    def _users(self, connection: Connection) -> Iterator[Metric]:
        family = GaugeMetricFamily("users_total", "Users by status", labels=["status"])
        counts = {"active": 0, "pending": 0, "suspended": 0}
        counts |= counts_of(connection, UserCountKind.STATUS)
        for status, count in counts.items():
            family.add_metric([status], count)
        yield family

    def _active_sessions(self, connection: Connection) -> Iterator[Metric]:
        live = self._sessions.count_live_now(connection)
        yield GaugeMetricFamily("sessions_active", "Live sessions", value=live)

    def _outbox(self, connection: Connection) -> Iterator[Metric]:
        query = select(func.count(), func.min(OutboxEvent.occurred_at)).where(
            OutboxEvent.sent_at.is_(None), OutboxEvent.parked_at.is_(None)
        )
        pending, oldest = connection.execute(query).one()
        age = (self._clock.now() - oldest).total_seconds() if pending else 0.0
        yield GaugeMetricFamily("outbox_pending", "Events not published yet", value=pending)
        yield GaugeMetricFamily(
            "outbox_oldest_seconds", "Age of the oldest of them", value=max(0.0, age)
        )
        refused = select(func.count()).where(OutboxEvent.parked_at.is_not(None))
        yield GaugeMetricFamily(
            "outbox_parked",
            "Events that the broker refused for good",
            value=connection.execute(refused).scalar_one(),
        )

    def _mails(self, connection: Connection) -> Iterator[Metric]:
        unsent = OutgoingMail.sent_at.is_(None)
        waiting, oldest = connection.execute(
            select(func.count(), func.min(OutgoingMail.created_at)).where(
                unsent, OutgoingMail.parked_at.is_(None)
            )
        ).one()
        age = (self._clock.now() - oldest).total_seconds() if waiting else 0.0
        yield GaugeMetricFamily("mails_waiting", "Mails not sent yet", value=waiting)
        yield GaugeMetricFamily(
            "mail_oldest_seconds", "Age of the oldest of them", value=max(0.0, age)
        )
        parked = select(func.count()).where(unsent, OutgoingMail.parked_at.is_not(None))
        yield GaugeMetricFamily(
            "mails_parked",
            "Mails that the mail server refused for good",
            value=connection.execute(parked).scalar_one(),
        )

    def _published(self) -> Iterator[Metric]:
        # Never kept: the next scrape may meet another process, and a counter must not go back.
        with reading() as connection:
            counts = connection.execute(
                select(PublishedEvents.total, PublishedEvents.expired)
            ).one()
        yield CounterMetricFamily(
            "events_published", "Events confirmed by the broker, by any worker", value=counts.total
        )
        yield CounterMetricFamily(
            "events_expired",
            "Events deleted unsent because no broker is configured",
            value=counts.expired,
        )

    def _imports(self, connection: Connection) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "imports_unfinished", "Imports that wait for the worker or run", labels=["state"]
        )
        for state, count in unfinished_imports(connection).items():
            family.add_metric([state], count)
        yield family

    def _worker(self, connection: Connection) -> Iterator[Metric]:
        seen = connection.execute(select(func.max(WorkerHeartbeat.last_seen_at))).scalar_one()
        if seen is not None:
            yield GaugeMetricFamily(
                "worker_last_seen_timestamp_seconds",
                "When a worker was last at work, in seconds since 1970",
                value=seen.timestamp(),
            )

    def _password_hashes(self, connection: Connection) -> Iterator[Metric]:
        counts = self._peppers.counts(connection)
        family = GaugeMetricFamily(
            "password_hashes",
            f"Password hashes by the pepper that they need, counted up to {COUNTED_UP_TO}",
            labels=["pepper"],
        )
        for pepper, count in counts.items():
            family.add_metric([pepper], count)
        yield family
        yield GaugeMetricFamily(
            "password_peppers_missing",
            "Peppers that password hashes need and that are not configured",
            value=len(self._peppers.missing_of(counts)),
        )

    def _seal_keys(self, connection: Connection) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "audit_seal_keys_missing",
            "Keys that seals of the audit log need and that are not configured",
            value=len(self._seals.missing_keys(connection)),
        )


def _counted(count: Callable[[Connection], Iterator[Metric]]) -> list[Metric]:
    """Return what is counted; nothing where that takes too long, which is kept like a figure."""
    try:
        with counting() as connection, statement_timeout(connection, FIGURE_SECONDS):
            return list(count(connection))
    except OperationalError as exc:
        if not isinstance(exc.orig, QueryCanceled):
            raise
        log.warning("metrics.figure_takes_too_long")
        return []


class _Kept:
    """Metrics that are asked for again only after a while: so many times as long as asking took.

    Nothing is kept of an asking that raised.
    """

    def __init__(
        self, ask: Callable[[], Iterable[Metric]], seconds: float, *, times: float = 0.0
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._times = times
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._until = 0.0

    def get(self) -> list[Metric]:
        """Return the metrics, asked for anew where those that are kept are too old."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._until:
                self._metrics = list(self._ask())
                ended = time.monotonic()
                self._until = ended + max(self._seconds, (ended - begun) * self._times)
            return self._metrics
