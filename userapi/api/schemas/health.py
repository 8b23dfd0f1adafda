"""Schemas of health."""

from marshmallow import Schema, fields

from .fields import Moment


class Health(Schema):
    """The name and version of the service."""

    status = fields.String(metadata={"example": "healthy"})
    service = fields.String(metadata={"example": "User Management Service"})
    version = fields.String(metadata={"example": "1.0.0"})
    timestamp = Moment()


class Liveness(Schema):
    """The process responds."""

    status = fields.String(metadata={"example": "alive"})


class Checks(Schema):
    """The state of each dependency: up, down or disabled; the database also read_only."""

    database = fields.String(metadata={"example": "up"})
    redis = fields.String(metadata={"example": "up"})
    rabbitmq = fields.String(metadata={"example": "disabled"})
    password_pepper = fields.String(
        metadata={
            "example": "up",
            "description": "unknown: some password hashes need a pepper that is not configured.",
        }
    )
    database_encoding = fields.String(
        metadata={
            "example": "unsupported",
            "description": "Present only if the database cannot store Unicode: unsupported.",
        }
    )
    clock = fields.String(
        metadata={
            "example": "skewed",
            "description": "Present only if this machine's clock differs from that of the database"
            " by more than 10 seconds: skewed.",
        }
    )


class Readiness(Schema):
    """Whether the service is ready: ready, degraded or not_ready."""

    status = fields.String(metadata={"example": "ready"})
    checks = fields.Nested(Checks)


class Serving(Schema):
    """Whether the process accepts requests: serving or draining."""

    status = fields.String(metadata={"example": "serving"})


class Component(Schema):
    """A dependency."""

    status = fields.String(metadata={"example": "up"})
    latency_ms = fields.Float(allow_none=True, metadata={"example": 0.8})
    migration = fields.String(allow_none=True, metadata={"example": None})


class DatabaseComponent(Component):
    """The database."""

    schema = fields.String(
        allow_none=True,
        metadata={
            "example": "current",
            "description": "current, ahead (migrated by a newer release), behind, or incompatible"
            " (ahead, and this release does not work with it); null if it is unknown.",
        },
    )


class ClockComponent(Schema):
    """The clock of this machine, compared with that of the database."""

    skew_seconds = fields.Float(allow_none=True)


class OutboxComponent(Schema):
    """Events that are not published yet."""

    pending = fields.Integer(allow_none=True)
    oldest_seconds = fields.Float(allow_none=True)


class WorkerComponent(Schema):
    """The worker."""

    last_seen = Moment(allow_none=True)


class Components(Schema):
    """Each component."""

    database = fields.Nested(DatabaseComponent)
    redis = fields.Nested(Component)
    rabbitmq = fields.Nested(Component)
    password_pepper = fields.Nested(Component)
    clock = fields.Nested(ClockComponent)
    outbox = fields.Nested(OutboxComponent)
    worker = fields.Nested(WorkerComponent)


class DetailedHealth(Schema):
    """The service and each component."""

    status = fields.String(metadata={"example": "healthy"})
    components = fields.Nested(Components)
