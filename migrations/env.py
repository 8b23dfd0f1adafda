"""Runs migrations inside the application, on the database that its settings name.

Each migration is a transaction of its own. On PostgreSQL an advisory lock lets one process migrate
while others wait, and a lock that cannot be had soon is given up rather than queued for: a queued
DDL statement would stop everybody behind it.
"""

import re
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.util import CommandError
from alembic.script import ScriptDirectory
from flask import current_app

from userapi.database_encoding import UnsupportedEncoding

ADVISORY_LOCK = 7120061
NUMBER = re.compile(r"[0-9]{4}", re.ASCII)

migrate = current_app.extensions["migrate"]
engine: sa.Engine = migrate.db.engine
metadata: sa.MetaData = migrate.db.metadata


ONLY_ON_POSTGRESQL = ("_trgm", "_grams", "_never_first", "_never_last")


def only_ours(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Leave alone what the models do not know of, such as indexes that only PostgreSQL has."""
    return not (reflected and kind == "index" and (name or "").endswith(ONLY_ON_POSTGRESQL))


def number_revisions(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Count revisions: 0001, 0002 …"""
    script = ScriptDirectory.from_config(context.config)
    numbers = [int(r.revision) for r in script.walk_revisions() if NUMBER.fullmatch(r.revision)]
    for directive in directives:
        directive.rev_id = f"{max(numbers, default=0) + 1:04d}"


def run() -> None:
    """Bring the database to the wanted revision."""
    with engine.connect() as connection:
        is_postgresql = connection.dialect.name == "postgresql"
        if is_postgresql:
            connection.execute(sa.text("SET statement_timeout = 0"))
            # Nor is an answer given up: an index on a large table takes its time.
            driver_connection: Any = connection.connection.dbapi_connection
            usual_bound = driver_connection.answer_seconds
            driver_connection.answer_seconds = None
            connection.execute(sa.text("SET lock_timeout = '10s'"))
            connection.execute(sa.text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
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
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            if is_postgresql:
                connection.rollback()
                connection.execute(sa.text(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})"))
                connection.execute(sa.text("RESET ALL"))
                connection.commit()
                driver_connection.answer_seconds = usual_bound


try:
    run()
except sa.exc.OperationalError as exc:
    if isinstance(exc.orig, UnsupportedEncoding):
        raise CommandError(str(exc.orig)) from exc
    raise CommandError(f"The database does not answer as it should: {exc.orig}") from exc
