"""The health of the service: whether it can serve requests, and the state of each dependency."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from userapi.clock import Clock
from userapi.diagnosis import database, rabbitmq, redis_server
from userapi.diagnosis.checks import Check, Status, run_checks
from userapi.diagnosis.health_connection import HealthConnection
from userapi.infrastructure.database.clock_skew import MAX_SKEW_SECONDS
from userapi.passwords.peppers import Peppers
from userapi.serving.draining import is_draining

VERSION = "1.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessReport:
    """Whether the service can serve requests, and the status of each dependency."""

    status: str
    checks: dict[str, Status]
    clock_skew_seconds: float | None

    @property
    def is_ready(self) -> bool:
        """Return whether the service can serve requests."""
        return self.status != "not_ready"


class Health:
    """Checks the dependencies and sums up their state."""

    def __init__(
        self,
        *,
        service_name: str,
        clock: Clock,
        peppers: Peppers,
        database_url: str,
        redis_url: str,
        rabbitmq_url: str,
        tolerated_skew_seconds: int,
    ) -> None:
        self._service_name = service_name
        self._clock = clock
        self._checks: dict[str, Callable[[], Check]] = {
            "database": partial(
                database.check,
                HealthConnection(database_url),
                clock=clock,
                peppers=peppers,
                tolerated_skew_seconds=tolerated_skew_seconds,
            ),
            "redis": partial(redis_server.check, redis_url),
            "rabbitmq": partial(rabbitmq.check, rabbitmq_url),
        }

    def summary(self) -> dict[str, Any]:
        """Return the name, version and time of the service."""
        return {
            "status": "healthy",
            "service": self._service_name,
            "version": VERSION,
            "timestamp": self._clock.now(),
        }

    def readiness(self) -> ReadinessReport:
        """Return whether the service can serve requests: database, peppers and clock decide."""
        checks = run_checks(self._checks)
        statuses = {name: check.status for name, check in checks.items()}
        if checks["database"].encoding is not None:
            statuses["database_encoding"] = Status.UNSUPPORTED
        skew = checks["database"].clock_skew_seconds
        if _is_far_off(skew):
            statuses["clock"] = Status.SKEWED
        statuses["password_pepper"] = _pepper_status(checks["database"])
        if statuses["password_pepper"] is not Status.UP or is_draining() or _is_far_off(skew):
            status = "not_ready"
        elif _is_degraded(checks):
            status = "degraded"
        else:
            status = "ready"
        return ReadinessReport(status=status, checks=statuses, clock_skew_seconds=skew)

    def is_serving(self) -> bool:
        """Return whether this process accepts requests, whatever else is unavailable."""
        return not is_draining()

    def detailed(self) -> dict[str, Any]:
        """Return the state of each component."""
        checks = run_checks(self._checks)
        state = checks["database"]
        pepper = _pepper_status(state)
        if pepper is not Status.UP or _is_far_off(state.clock_skew_seconds):
            status = "unhealthy"
        elif _is_degraded(checks):
            status = "degraded"
        else:
            status = "healthy"
        return {
            "status": status,
            "components": {
                **checks,
                "password_pepper": {"status": pepper},
                "clock": {"skew_seconds": state.clock_skew_seconds},
                "outbox": {"pending": state.pending, "oldest_seconds": state.oldest_seconds},
                "worker": {"last_seen": state.worker_seen},
            },
        }


def _is_far_off(skew_seconds: float | None) -> bool:
    """Return whether other processes would reject tokens of this one, or it theirs."""
    return skew_seconds is not None and abs(skew_seconds) > MAX_SKEW_SECONDS


def _is_degraded(checks: Mapping[str, Check]) -> bool:
    return any(check.status in (Status.DOWN, Status.READ_ONLY) for check in checks.values())


def _pepper_status(state: Check) -> Status:
    """Return whether every pepper that a hash in the database needs is configured."""
    if not state.status.responds:
        return Status.DOWN
    return Status.UNKNOWN if state.missing_peppers else Status.UP
