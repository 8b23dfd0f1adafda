"""PostgreSQL: its version, clock, extension and privileges, and the pooler in front of it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
from sqlalchemy import Connection, text

from userapi.clock import Clock
from userapi.diagnosis import replication
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.database import SESSION_SETTINGS, connect_alone, has_pooler, reading
from userapi.infrastructure.database.clock_skew import MAX_SKEW_SECONDS
from userapi.settings import Settings

MIN_POSTGRESQL = 130000
# The session settings that deploy/pgbouncer/role.sql sets.
SETTINGS_OF_ROLE = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
)

_SERVER = text(
    "SELECT clock_timestamp() AS now,"
    " current_setting('server_version_num')::int AS version,"
    " EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') AS has_trgm,"
    " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,"
    " EXISTS (SELECT FROM pg_tables WHERE tableowner = current_user"
    " AND tablename = 'audit_logs') AS is_owner"
)


def findings(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Yield how the server and its pooler fit the service."""
    with reading() as connection:
        yield from _pooler(connection)
        yield from replication.findings(connection, settings.database_url)
        server = connection.execute(_SERVER).one()
    yield from _direct_connection(settings)
    skew = abs((clock.now() - server.now).total_seconds())
    yield from warnings(
        "database",
        (
            skew > MAX_SKEW_SECONDS,
            f"the clocks of this machine and of PostgreSQL are {skew:.0f} s apart",
            "Synchronise both machines with NTP.",
        ),
        (
            server.version < MIN_POSTGRESQL,
            f"PostgreSQL is version {server.version // 10000}; 13 is the oldest tested version",
            "Upgrade PostgreSQL.",
        ),
        (
            not server.has_trgm,
            "the extension pg_trgm is missing: a search reads the whole table",
            "As its owner: CREATE EXTENSION pg_trgm; then recreate the index of migration 0004.",
        ),
        (
            server.is_superuser and settings.is_production,
            "the service is a superuser of PostgreSQL and could alter the audit log",
            "Create a separate role: see deploy/postgresql/roles.sql.",
        ),
        (
            server.is_owner and not server.is_superuser and settings.is_production,
            "the service owns its tables and could disable the protection of the audit log",
            "Transfer them to another role: see deploy/postgresql/roles.sql.",
        ),
    )


def _direct_connection(settings: Settings) -> Iterator[Finding]:
    """Yield why the worker and migrations cannot connect without a pooler."""
    is_separate = settings.database_direct_url != settings.database_url
    if not is_separate and not settings.runs_worker_inside:
        return  # The worker and migrations may have other variables.
    try:
        with closing(connect_alone(settings.database_direct_url, "userapi-doctor")) as connection:
            pooled = has_pooler(connection)
    except psycopg2.Error:
        yield Finding(
            "database",
            Level.FAULT,
            "PostgreSQL does not answer at DATABASE_DIRECT_URL",
            "Correct DATABASE_DIRECT_URL.",
        )
        return
    if pooled:
        yield Finding(
            "database",
            Level.FAULT,
            "the worker and `flask db` connect through a pooler, and refuse to start",
            "Set DATABASE_DIRECT_URL to PostgreSQL's own address.",
        )


def _pooler(connection: Connection) -> Iterator[Finding]:
    """Yield what a pooler between the service and PostgreSQL changes."""
    driver_connection: Any = connection.connection.dbapi_connection
    if not has_pooler(driver_connection):
        return
    yield Finding(
        "database",
        Level.OK,
        "connected through a pooler: fine for the service, not for the worker and `flask db`",
    )
    rows = connection.execute(text("SELECT name, setting, unit FROM pg_settings"))
    present = {row.name.lower(): row.setting + (row.unit or "") for row in rows}
    lost = [name for name in SETTINGS_OF_ROLE if present[name] != SESSION_SETTINGS[name]]
    yield from warnings(
        "database",
        (
            lost,
            f"the pooler drops session settings of the service: {', '.join(lost)}",
            "Run deploy/pgbouncer/role.sql on the database, then RECONNECT in PgBouncer.",
        ),
    )
