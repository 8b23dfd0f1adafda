"""Metrics that are read from the database and the dependencies at a scrape."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from psycopg2.errors import QueryCanceled
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from userapi.accounts.batch_jobs import count_unfinished
from userapi.accounts.bulk_jobs.models import jobs_table as bulk_jobs
from userapi.accounts.imports.job_models import jobs_table as imports
from userapi.audit.seals import AuditSeals
from userapi.clock import Clock
from userapi.diagnosis.checks import Status
from userapi.events.models import OutboxEvent, PublishedEvents
from userapi.factors.figures import users_by_type
from userapi.factors.secret_rotation import SecretRotation
from userapi.health import Health
from userapi.infrastructure.database import counting, reading, statement_timeout
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.infrastructure.user_counts import UserCountKind, counts_of
from userapi.machines.counts import count_machines
from userapi.mail.models import OutgoingMail
from userapi.passwords.peppers import COUNTED_UP_TO, Peppers
from userapi.sessions.service import Sessions

log = structlog.get_logger(__name__)

# Users are counted as they change, sessions and events by indexes only. Each count is cached for
# 50 times as long as it took, so counting never takes more than a fiftieth of the time.
COUNTS_TTL_SECONDS = 1.0
TTL_PER_SECOND = 50
COUNT_TIMEOUT_SECONDS = 1.0
DEPENDENCIES_TTL_SECONDS = 2.0


class DatabaseCollector:
    """Collects metrics from the database and the dependencies when Prometheus scrapes.

    They are cached for a moment, expensive ones for longer, and read by one scrape at a time. A
    scrape never fails because of them: those that cannot be read are missing.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        health: Health,
        sessions: Sessions,
        seals: AuditSeals,
        peppers: Peppers,
        secrets: SecretRotation,
    ) -> None:
        self._clock = clock
        self._health = health
        self._sessions = sessions
        self._seals = seals
        self._peppers = peppers
        self._secrets = secrets
        # A fixed time, however long the check of an unavailable dependency took.
        self._dependencies = _Cached(self._check_dependencies, DEPENDENCIES_TTL_SECONDS)
        self._counts = [
            _Cached(partial(_counted, count), COUNTS_TTL_SECONDS, per_second=TTL_PER_SECOND)
            for count in (
                self._users,
                self._active_sessions,
                self._second_factors,
                self._outbox,
                self._jobs,
                self._mails,
                self._worker,
                self._machines,
                self._seal_keys,
                self._password_hashes,
            )
        ]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, for prometheus_client."""
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
            # It has become unavailable, and every other count would wait for it as well.
            log.warning("metrics.counts_missing", error=type(exc).__name__)

    def _check_dependencies(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "dependency_up", "Whether a dependency answers", labels=["dependency"]
        )
        report = self._health.readiness()
        for name, status in report.checks.items():
            if name != "password_pepper" and (status.responds or status is Status.DOWN):
                up.add_metric([name], 1.0 if status.responds else 0.0)
        yield up
        if report.clock_skew_seconds is not None:
            yield GaugeMetricFamily(
                "clock_skew_seconds",
                "Seconds by which the clock of this machine is ahead of PostgreSQL's",
                value=report.clock_skew_seconds,
            )

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

    def _second_factors(self, connection: Connection) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "users_mfa", "Users with a second factor by its type", labels=["method"]
        )
        for type_, count in users_by_type(connection).items():
            family.add_metric([type_], count)
        yield family
        yield GaugeMetricFamily(
            "totp_secrets_unreadable",
            "Secrets of authenticator apps that need a key that is not configured",
            value=self._secrets.count_unreadable(connection),
        )

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
            "Events that the broker rejected permanently",
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
            "Mails that the mail server rejected permanently",
            value=connection.execute(parked).scalar_one(),
        )

    def _published(self) -> Iterator[Metric]:
        # Never cached: another process may serve the next scrape, and a counter must not decrease.
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

    def _jobs(self, connection: Connection) -> Iterator[Metric]:
        for name, about, counts in (
            ("imports_unfinished", "Imports", count_unfinished(connection, imports)),
            ("bulk_changes_unfinished", "Bulk changes", count_unfinished(connection, bulk_jobs)),
        ):
            family = GaugeMetricFamily(
                name, f"{about} that wait for the worker or run", labels=["state"]
            )
            for state, count in counts.items():
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

    def _machines(self, connection: Connection) -> Iterator[Metric]:
        by_status, by_owner = count_machines(connection, self._clock.now())
        family = GaugeMetricFamily(
            "service_accounts_total", "Service accounts by status", labels=["status"]
        )
        for status, count in by_status.items():
            family.add_metric([status], count)
        yield family
        family = GaugeMetricFamily(
            "api_keys_active", "API keys neither revoked nor expired", labels=["owner_type"]
        )
        for owner_type, count in by_owner.items():
            family.add_metric([owner_type], count)
        yield family

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
    """Return the metrics of a count; none if it takes too long, which is cached as well."""
    try:
        with counting() as connection, statement_timeout(connection, COUNT_TIMEOUT_SECONDS):
            return list(count(connection))
    except OperationalError as exc:
        if not isinstance(exc.orig, QueryCanceled):
            raise
        log.warning("metrics.count_timed_out")
        return []


class _Cached:
    """Metrics that are cached: for `seconds`, or `per_second` seconds for each second they took.

    An exception is not cached.
    """

    def __init__(
        self, read: Callable[[], Iterable[Metric]], seconds: float, *, per_second: float = 0.0
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._per_second = per_second
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._expires_at = 0.0

    def get(self) -> list[Metric]:
        """Return the metrics, read again if the cached ones have expired."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._expires_at:
                self._metrics = list(self._read())
                ended = time.monotonic()
                self._expires_at = ended + max(self._seconds, (ended - begun) * self._per_second)
            return self._metrics
