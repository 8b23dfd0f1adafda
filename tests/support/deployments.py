"""The application as tests use it: on PostgreSQL with Redis, or on SQLite without Redis."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from unittest import mock

import flask_migrate
from flask import Flask

from tests.support.databases import MigratedDatabase, SqliteDatabase
from userapi import create_app
from userapi.clock import Clock, ManualClock
from userapi.infrastructure.database import db, init_migrations
from userapi.infrastructure.redis_topologies import redis_client
from userapi.settings import Settings
from userapi.wiring.services import Services

# What every application of the tests has in common. Limits are off, because all tests come from
# one address; a test about limits creates another application.
ENVIRONMENT: Mapping[str, str] = {
    "ENVIRONMENT": "testing",
    "SECRET_KEY": "tests-sign-cursors-with-this-4fZq81Lw0c",
    "JWT_SECRET_KEY": "tests-sign-tokens-with-this-9sXe37Kd5m",
    "PASSWORD_PEPPER": "tests-hash-passwords-with-this-2bTn64Rj",
    "ENCRYPTION_KEY": "tests-encrypt-with-this-7hRw52Jx9pQe",
    "PASSWORD_HASH_ROUNDS": "4",
    "RATE_LIMIT_ENABLED": "false",
    # Room for all threads of a test: the wait for a connection ends after a second with a 503.
    "DATABASE_POOL_SIZE": "30",
}

PATIENT_SECONDS = 30.0


class Backend(StrEnum):
    """The database of an application."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An application and its database; one of each kind in a worker, because they are expensive."""

    app: Flask
    clock: ManualClock
    database: MigratedDatabase
    environment: Mapping[str, str]
    instance_dir: Path
    empty_cache: Callable[[], object]

    def restore(self) -> None:
        """Restore the state after the migrations."""
        self.clock.reset()
        with self.app.app_context():
            db.session.remove()
        self.database.restore()
        self.empty_cache()
        # A process may cache what is true of a database that only grows and of a clock that only
        # moves forward. Here both go back.
        services: Services = self.app.extensions["userapi"]
        services.roles.clear_cache()
        services.user_search.drop_cached_totals()
        services.statistics.drop_cached()


def build_app(environment: Mapping[str, str], *, clock: Clock, instance_dir: Path) -> Flask:
    """Return an application for these variables and no others."""
    settings = Settings.from_env(environment, instance_dir=instance_dir)
    app = create_app(settings, clock=clock)
    init_migrations(app)  # As `flask db` does. Tests call Flask-Migrate's functions.
    return app


@contextmanager
def patient_redis() -> Iterator[None]:
    """Let applications that are built meanwhile wait for Redis as long as a busy machine needs.

    In production a late reply counts as an outage after 40 ms. In a test of limits, counting then
    begins again in the process.
    """
    patient = partial(redis_client, timeout_seconds=PATIENT_SECONDS)
    with mock.patch("userapi.wiring.redis.redis_client", patient):
        yield


def migrate_with(instance_dir: Path) -> Callable[[str], None]:
    """Return a function that runs the real migrations on the database of a URL."""

    def migrate(url: str) -> None:
        environment = {**ENVIRONMENT, "DATABASE_URL": url}
        app = build_app(environment, clock=ManualClock(), instance_dir=instance_dir)
        with app.app_context():
            flask_migrate.upgrade()
        disconnect(app)

    return migrate


def disconnect(app: Flask) -> None:
    """Close the connections that an application keeps to its database."""
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def deploy(
    database: MigratedDatabase,
    *,
    instance_dir: Path,
    environment: Mapping[str, str],
    empty_cache: Callable[[], object],
) -> Deployment:
    """Return an application on a database; `empty_cache` empties its Redis."""
    complete = {**ENVIRONMENT, **environment, "DATABASE_URL": database.url}
    clock = ManualClock()
    with patient_redis():
        app = build_app(complete, clock=clock, instance_dir=instance_dir)
    if isinstance(database, SqliteDatabase):
        database.disconnect = lambda: disconnect(app)
    return Deployment(
        app=app,
        clock=clock,
        database=database,
        environment=complete,
        instance_dir=instance_dir,
        empty_cache=empty_cache,
    )
