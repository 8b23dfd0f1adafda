"""Runs migrations inside the application, on the database that its settings name.

Each migration is a transaction of its own; `userapi.infrastructure.migration_steps` describes which
steps run outside of it. One process migrates while others wait for the lock. They try to acquire it
repeatedly, each time in a new transaction: a single waiting statement would hold a snapshot, and
building an index concurrently waits for all snapshots. A migration does not wait long for a table
lock, because a queued DDL statement blocks every later statement on the table. The migration is
retried for 15 minutes.
"""

import fcntl
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
import structlog
from alembic import context
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from flask import current_app
from psycopg2.errors import DeadlockDetected, LockNotAvailable

from userapi.infrastructure.database import direct_engine, require_no_pooler
from userapi.infrastructure.database.encoding import UnsupportedEncoding
from userapi.infrastructure.migration_steps import LOCK_TIMEOUT
from userapi.infrastructure.schema_compatibility import (
    OLDEST_REVISIONS,
    SchemaState,
    schema_state,
)
from userapi.private_files import make_file
from userapi.settings import SettingsError
from userapi.wiring.groups import EXTENSION

# Autogenerate compares the database with the tables of these modules.
MODELS = (
    "userapi.accounts.bulk_jobs.models",
    "userapi.accounts.imports.job_models",
    "userapi.accounts.models",
    "userapi.accounts.saved_filters",
    "userapi.audit.models",
    "userapi.events.models",
    "userapi.factors.models",
    "userapi.infrastructure.heartbeat",
    "userapi.infrastructure.idempotency_keys",
    "userapi.infrastructure.schema_compatibility",
    "userapi.infrastructure.user_counts",
    "userapi.lockout.models",
    "userapi.machines.models",
    "userapi.mail.models",
    "userapi.passwords.models",
    "userapi.roles.models",
    "userapi.sessions.models",
)
# The commands of `flask db` that compare nothing.
WITHOUT_MODELS = frozenset({"current", "downgrade", "stamp", "upgrade"})

command = click.get_current_context(silent=True)
if command is None or command.info_name not in WITHOUT_MODELS:
    for module in MODELS:
        import_module(module)

log = structlog.get_logger("userapi.migrations")

ADVISORY_LOCK = 7120061
TURN_POLL_SECONDS = 0.5
MAX_TURN_SECONDS = 30 * 60
TRY_AGAIN_SECONDS = 2.0
MAX_TRIES_SECONDS = 15 * 60
NUMBER = re.compile(r"[0-9]{4}", re.ASCII)

migrate = current_app.extensions["migrate"]
engine: sa.Engine = direct_engine()
metadata: sa.MetaData = migrate.db.metadata


ONLY_ON_POSTGRESQL = ("_peppers", "_trgm", "_grams", "_never_first", "_never_last")


def only_ours(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Ignore what the models do not contain, such as indexes that only PostgreSQL has."""
    return not (reflected and kind == "index" and (name or "").endswith(ONLY_ON_POSTGRESQL))


def number_revisions(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Number the revisions: 0001, 0002 …"""
    script = ScriptDirectory.from_config(context.config)
    numbers = [int(r.revision) for r in script.walk_revisions() if NUMBER.fullmatch(r.revision)]
    for directive in directives:
        directive.rev_id = f"{max(numbers, default=0) + 1:04d}"


def run() -> None:
    """Migrate the database to the wanted revision."""
    if engine.dialect.name == "sqlite":
        # Before connecting, because connecting changes the file.
        with turn_on_sqlite(), engine.connect() as connection:
            run_migrations(connection)
        return
    with engine.connect() as connection, without_time_outs(connection), turn(connection):
        give_up_at = time.monotonic() + MAX_TRIES_SECONDS
        while True:
            try:
                run_migrations(connection)
                return
            except sa.exc.OperationalError as exc:
                connection.rollback()
                is_locked = isinstance(exc.orig, LockNotAvailable | DeadlockDetected)
                if not is_locked or time.monotonic() > give_up_at:
                    raise
                log.warning("migration.waits_for_lock", error=type(exc.orig).__name__)
                time.sleep(TRY_AGAIN_SECONDS)


def run_migrations(connection: sa.Connection) -> None:
    """Run the missing migrations."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        transaction_per_migration=True,
        include_object=only_ours,
        process_revision_directives=number_revisions,
        render_as_batch=False,
    )
    if is_upgrade_by_older_release(connection):
        log.info("migration.schema_is_ahead")
        return
    with context.begin_transaction():
        context.run_migrations()


def is_upgrade_by_older_release(connection: sa.Connection) -> bool:
    """Return whether a newer release has migrated the database, as after a roll-back.

    Alembic would fail, because this release does not have the migrations of the newer one.
    """
    migration = context.get_context()
    if migration.opts.get("destination_rev") != "head":
        return False
    revision = next(iter(migration.get_current_heads()), None)
    state = schema_state(revision, lambda: connection.scalars(sa.text(OLDEST_REVISIONS)))
    connection.rollback()
    return state is SchemaState.AHEAD


@contextmanager
def without_time_outs(connection: sa.Connection) -> Iterator[None]:
    """Remove the limit on the time of statements, because an index on a large table takes long."""
    driver_connection: Any = connection.connection.dbapi_connection
    usual_bound = driver_connection.reply_seconds
    driver_connection.reply_seconds = None
    # A cancelled CREATE INDEX CONCURRENTLY leaves an index that is invalid.
    driver_connection.repeats_cancelled = False
    connection.execute(
        sa.text("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    )
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(sa.text("RESET ALL"))
        connection.commit()
        driver_connection.reply_seconds = usual_bound
        driver_connection.repeats_cancelled = True


@contextmanager
def turn(connection: sa.Connection) -> Iterator[None]:
    """Wait until no other process migrates. The lock is released with the connection."""
    wait_for_turn(lambda: _has_lock(connection))
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(sa.text(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})"))
        connection.commit()


def _has_lock(connection: sa.Connection) -> bool:
    has_it = connection.execute(sa.text(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})")).scalar()
    connection.commit()
    return bool(has_it)


@contextmanager
def turn_on_sqlite() -> Iterator[None]:
    """Wait until no other process migrates this file."""
    path = Path(f"{engine.url.database}-migration")
    make_file(path)
    with path.open("rb") as file:
        wait_for_turn(lambda: _has_file(file.fileno()))
        yield


def _has_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_turn(has_turn: Callable[[], bool]) -> None:
    """Try until the lock is acquired. Raises CommandError after half an hour."""
    give_up_at = time.monotonic() + MAX_TURN_SECONDS
    waits = False
    while not has_turn():
        if time.monotonic() > give_up_at:
            raise CommandError("Another process has migrated the database for half an hour.")
        if not waits:
            log.info("migration.waits_for_turn")
            waits = True
        time.sleep(TURN_POLL_SECONDS)


try:
    require_no_pooler(current_app.extensions[EXTENSION].settings.database_direct_url)
    run()
except SettingsError as exc:
    raise CommandError(str(exc)) from exc
except sa.exc.OperationalError as exc:
    if isinstance(exc.orig, UnsupportedEncoding):
        raise CommandError(str(exc.orig)) from exc
    raise CommandError(f"The database cannot be used: {exc.orig}") from exc
