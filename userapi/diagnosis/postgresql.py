"""PostgreSQL: its version, clock, extension and privileges, and the pooler in front of it."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from userapi.clock import Clock
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.infrastructure.database import SESSION_SETTINGS, has_pooler, reading
from userapi.settings import Settings

# Verifiers of tokens allow the same.
MAX_SKEW_SECONDS = 10
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
        yield from _pooler(connection, runs_worker_inside=settings.runs_worker_inside)
        server = connection.execute(_SERVER).one()
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


def _pooler(connection: Connection, *, runs_worker_inside: bool) -> Iterator[Finding]:
    """Yield what a pooler between the service and PostgreSQL changes."""
    driver_connection: Any = connection.connection.dbapi_connection
    if not has_pooler(driver_connection):
        return
    yield Finding(
        "database",
        Level.OK,
        "connected through a pooler: fine for the service, not for the worker and `flask db`",
    )
    if runs_worker_inside:
        yield Finding(
            "database",
            Level.FAULT,
            "the embedded worker connects through the pooler: two workers may publish at once",
            "Set WORKER_EMBEDDED to false, and run `flask worker` with PostgreSQL's own address.",
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
