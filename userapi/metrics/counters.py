"""The metrics that code counts up, and the pool of database connections.

Label values come from closed sets, so no client can add a series. With several Gunicorn workers
each process writes its counts to its own file, and the scrape adds them up.
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy import Engine, event

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HASH_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)

_IN_USE = "userapi.in_use"


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
        self.sign_ins = Counter(
            "auth_sign_ins_total",
            "Complete sign-ins by method",
            ("method",),
            registry=self.registry,
        )
        self.second_steps = Counter(
            "auth_mfa_total",
            "Codes and passkeys by method and outcome",
            ("method", "outcome"),
            registry=self.registry,
        )
        self.refreshes = Counter(
            "auth_refreshes_total", "Refreshes by outcome", ("outcome",), registry=self.registry
        )
        self.step_ups = Counter(
            "auth_step_ups_total", "Step-ups by outcome", ("outcome",), registry=self.registry
        )
        self.lockouts = Counter(
            "auth_lockouts_total", "Accounts locked after failures", registry=self.registry
        )
        self.sessions_ahead = Counter(
            "sessions_ahead_total",
            "Refresh tokens newer than their session: the database has lost its last writes",
            registry=self.registry,
        )
        self.key_checks = Counter(
            "key_checks_total",
            "Requests with an API key or a client token, by outcome",
            ("outcome",),
            registry=self.registry,
        )
        self.tokens_issued = Counter(
            "tokens_issued_total",
            "Requests for client tokens, by outcome",
            ("outcome",),
            registry=self.registry,
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

    def count_sign_in(self, method: str) -> None:
        """Count a complete sign-in."""
        self.sign_ins.labels(method).inc()

    def count_second_step(self, method: str, outcome: str) -> None:
        """Count a code or a passkey that was checked, or not checked because of a lock."""
        self.second_steps.labels(method, outcome).inc()

    def watch_pool(self, engine: Engine) -> None:
        """Count the connections of a pool that are idle and in use."""
        in_use, idle = self.pool.labels("in_use"), self.pool.labels("idle")

        @event.listens_for(engine, "connect")
        def opened(_connection: object, _record: object) -> None:
            idle.inc()

        @event.listens_for(engine, "checkout")
        def checked_out(_connection: object, record: Any, _proxy: object) -> None:
            record.record_info[_IN_USE] = True
            in_use.inc()
            idle.dec()

        # Also called for a broken connection, which was closed before, and for a connection that
        # could not be opened, which was never checked out.
        @event.listens_for(engine, "checkin")
        def checked_in(_connection: object, record: Any) -> None:
            if record.record_info.pop(_IN_USE, False):
                in_use.dec()
                idle.inc()

        @event.listens_for(engine, "close")
        def closed(_connection: object, _record: object) -> None:
            idle.dec()

        @event.listens_for(engine, "detach")
        def detached(_connection: object, record: Any) -> None:
            record.record_info.pop(_IN_USE, None)
            in_use.dec()
