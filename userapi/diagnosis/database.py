"""The database: whether it accepts connections, is migrated, and can store every name.

Each check uses a connection outside of the pool with a short time-out, so that it also reports a
full pool and a server that hangs.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import psycopg2

from userapi.clock import Clock
from userapi.diagnosis import postgresql
from userapi.diagnosis.checks import Check, Status
from userapi.diagnosis.findings import Finding, Level
from userapi.diagnosis.health_connection import HealthConnection
from userapi.infrastructure.database import connect_alone
from userapi.infrastructure.database.clock_skew import measure_skew
from userapi.infrastructure.database.encoding import UnsupportedEncoding
from userapi.infrastructure.schema_compatibility import (
    OLDEST_REVISIONS,
    SchemaState,
    head_revision,
    schema_state,
)
from userapi.passwords.peppers import NEEDED, Peppers
from userapi.settings import Settings

# A part of the error that PostgreSQL, its driver or a pooler returns → what it means, and the fix.
_CONNECTION_ERRORS = (
    (
        "unsupported startup parameter",
        "is behind a PgBouncer that rejects the startup options of the service",
        "Set `ignore_startup_parameters = options` there, and run deploy/pgbouncer/role.sql.",
    ),
    (
        "authentication failed",
        "rejects the user or the password",
        "Correct them in DATABASE_URL, or DATABASE_USER and DATABASE_PASSWORD.",
    ),
    ("no password supplied", "requires a password", "Set it in DATABASE_URL or DATABASE_PASSWORD."),
    ("does not exist", "has no such database or user", "Create it, or correct DATABASE_URL."),
    (
        "could not translate host name",
        "has a host name that does not resolve",
        "Correct DATABASE_URL.",
    ),
    (
        "too many c",
        "has no connection left",
        "Raise max_connections, lower DATABASE_POOL_SIZE, or put PgBouncer in between.",
    ),
)


def check(
    connections: HealthConnection, *, clock: Clock, peppers: Peppers, tolerated_skew_seconds: int
) -> Check:
    """Return the state of the database, of the outbox in it, and the last heartbeat of a worker.

    Raises errors of the driver.
    """
    try:
        connection, read_only = connections.take()
    except UnsupportedEncoding as exc:
        return Check(status=Status.DOWN, encoding=exc.encoding)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        (revision,) = cursor.fetchone() or (None,)
        schema = schema_state(revision, partial(_oldest_revisions, cursor))
        if not schema.is_usable:
            return Check(status=Status.DOWN, migration=revision or "none", schema=schema)
        cursor.execute(
            "SELECT COUNT(*), MIN(occurred_at) FROM (SELECT occurred_at FROM outbox_events"
            " WHERE sent_at IS NULL AND parked_at IS NULL LIMIT 100000) AS waiting"
        )
        pending, oldest = cursor.fetchone()
        cursor.execute("SELECT MAX(last_seen_at) FROM worker_heartbeats")
        (seen,) = cursor.fetchone()
        skew = None
        if not connections.on_sqlite:
            skew = measure_skew(connection, tolerated_seconds=tolerated_skew_seconds)
        cursor.execute(NEEDED)
        missing = peppers.missing_of(pepper for (pepper,) in cursor.fetchall())
    finally:
        connections.give_back(connection)
    oldest_at = _moment(oldest)
    age = (clock.now() - oldest_at).total_seconds() if oldest_at else 0.0
    return Check(
        status=Status.READ_ONLY if read_only else Status.UP,
        migration=revision,
        schema=schema,
        clock_skew_seconds=skew,
        pending=pending,
        oldest_seconds=round(max(age, 0.0), 3),
        worker_seen=_moment(seen),
        missing_peppers=tuple(missing),
    )


def findings(settings: Settings, result: Check, *, clock: Clock) -> Iterator[Finding]:
    """Yield whether the database can be used and, for PostgreSQL, whether it fits the service."""
    kind = "SQLite" if settings.uses_sqlite else "PostgreSQL"
    if result.status is Status.UP:
        newer = ", newer than this release" if result.schema is SchemaState.AHEAD else ""
        yield Finding(
            "database", Level.OK, f"{kind} answers, migrated to {result.migration}{newer}"
        )
        if not settings.uses_sqlite:
            yield from postgresql.findings(settings, clock)
    elif result.status is Status.READ_ONLY:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} is read-only: a standby, or a server that rejects changes",
            "Name the primary, or every server, in DATABASE_URL.",
        )
    elif result.encoding is not None:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} has a database with the encoding {result.encoding}, which cannot store every"
            " name",
            "Create one with ENCODING 'UTF8' TEMPLATE template0, move the data there by pg_dump and"
            " psql, and name it in DATABASE_URL.",
        )
    elif result.schema is SchemaState.INCOMPATIBLE:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} is at migration {result.migration}, which this release does not work with",
            "Use a newer release.",
        )
    elif result.migration is not None:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} is at migration {result.migration}, not {head_revision()}",
            "Run `flask db upgrade`.",
        )
    else:
        problem, fix = _problem(settings)
        yield Finding("database", Level.FAULT, f"{kind} {problem}", fix)


def _oldest_revisions(cursor: Any) -> list[str]:
    cursor.execute(OLDEST_REVISIONS)
    return [oldest for (oldest,) in cursor.fetchall()]


def _problem(settings: Settings) -> tuple[str, str]:
    """Return why the database cannot be read, and the fix."""
    if settings.uses_sqlite:
        return "was never migrated, or cannot be opened", "Run `flask db upgrade`."
    try:
        connect_alone(settings.database_url, "userapi-doctor").close()
    except psycopg2.Error as exc:
        for part, problem, fix in _CONNECTION_ERRORS:
            if part in str(exc):
                return problem, fix
        return "does not answer", "Start it, or correct DATABASE_URL."
    return "was never migrated", "Run `flask db upgrade`."


def _moment(value: Any) -> datetime | None:
    """Return a moment that a driver returned; SQLite returns text in UTC."""
    if isinstance(value, str):
        return datetime.fromisoformat(value + "+00:00")
    if isinstance(value, datetime):
        return value
    return None
