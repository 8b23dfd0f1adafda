"""Operation: health, metrics of the database, and clean-up."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.cleanup import CleanUp
from userapi.clock import Clock
from userapi.events.expiry import EventExpiry
from userapi.health import Health
from userapi.metrics.collector import DatabaseCollector
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation
from userapi.wiring.seals import SealServices
from userapi.wiring.secrets import SecretServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class OperationServices:
    """The services for operators and the worker."""

    clean_up: CleanUp
    database_metrics: DatabaseCollector
    health: Health


def build_operations(
    foundation: Foundation,
    secrets: SecretServices,
    sessions: SessionServices,
    seals: SealServices,
) -> OperationServices:
    """Build the services for operators and the worker."""
    settings, clock = foundation.settings, foundation.clock
    health = Health(
        service_name=settings.app_name,
        clock=clock,
        peppers=secrets.peppers,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        rabbitmq_url=settings.rabbitmq_url,
        tolerated_skew_seconds=settings.clock_skew_seconds,
    )
    return OperationServices(
        clean_up=CleanUp(clock, expiry=_event_expiry(settings, clock)),
        database_metrics=DatabaseCollector(
            clock=clock,
            health=health,
            sessions=sessions.sessions,
            seals=seals.audit_seals,
            peppers=secrets.peppers,
            secrets=secrets.totp_secret_rotation,
        ),
        health=health,
    )


def _event_expiry(settings: Settings, clock: Clock) -> EventExpiry | None:
    """Return what deletes unsent events; None with a broker, which will receive all of them."""
    if settings.rabbitmq_url:
        return None
    return EventExpiry(clock=clock, kept=timedelta(days=settings.outbox_retention_days))
