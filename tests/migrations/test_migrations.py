"""Migrations build the schema of the models, and each can be downgraded and upgraded with rows.

Each test has its own database, because it changes the schema.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import flask_migrate
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask

import userapi
from tests.support.databases import PostgresDatabase
from tests.support.deployments import ENVIRONMENT, Backend, build_app, disconnect
from userapi.actor import system_actor
from userapi.audit.actions import AuditAction
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, transaction
from userapi.settings import PROJECT_ROOT
from userapi.wiring.services import Services

# Tables of Alembic and of SQLite itself.
OF_TOOLS = re.compile("alembic_version|sqlite_sequence")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


def revisions() -> list[str]:
    """Return all revisions, the first one first."""
    script = ScriptDirectory(str(PROJECT_ROOT / "migrations"))
    return [revision.revision for revision in script.walk_revisions()][::-1]


@pytest.fixture(
    params=[Backend.POSTGRESQL, pytest.param(Backend.SQLITE, marks=pytest.mark.thorough)], ids=str
)
def app(
    request: pytest.FixtureRequest, tmp_path: Path, make_database: Callable[[str], PostgresDatabase]
) -> Iterator[Flask]:
    """Return an application on an empty database that nothing has migrated."""
    if request.param is Backend.SQLITE:
        url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    else:
        url = make_database(f"migrated_{uuid4().hex[:8]}").url
        _empty(url)
    app = build_app(
        {**ENVIRONMENT, "DATABASE_URL": url}, clock=ManualClock(), instance_dir=tmp_path
    )
    with app.app_context():
        yield app
    disconnect(app)


def _empty(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS pristine CASCADE")
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


ONLY_ON_POSTGRESQL = ("_peppers", "_trgm", "_grams", "_never_first", "_never_last")


def differences() -> list[Any]:
    """Return what the database has otherwise than the models say, loaded or not."""
    for module in pkgutil.walk_packages(userapi.__path__, "userapi."):
        importlib.import_module(module.name)

    def is_ours(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
        return not (reflected and kind == "index" and (name or "").endswith(ONLY_ON_POSTGRESQL))

    with db.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_ours}
        )
        return list(compare_metadata(context, db.metadata))


def schema() -> str:
    """Return the schema as text that can be compared."""
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(
                "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
            ).all()
        else:
            rows = connection.exec_driver_sql(
                "SELECT 'column', table_name || '.' || column_name,"
                " data_type || coalesce(column_default, '') || is_nullable"
                " FROM information_schema.columns WHERE table_schema = 'public'"
                " UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes"
                " WHERE schemaname = 'public'"
                " UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger"
                " WHERE NOT tgisinternal"
                " UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid)"
                " FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
                " UNION ALL SELECT 'function', proname, prosrc FROM pg_proc"
                " WHERE pronamespace = 'public'::regnamespace AND prolang <> ("
                "  SELECT oid FROM pg_language WHERE lanname = 'c')"
                " ORDER BY 1, 2, 3"
            ).all()
    return "\n".join(map(str, rows))


def contents() -> dict[str, list[str]]:
    """Return all rows of all tables. Versions of roles only grow, even when a migration goes down.

    Therefore they are left out.
    """
    with db.engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        return {
            name: sorted(
                str(
                    [
                        bytes(value) if isinstance(value, memoryview) else value
                        for column, value in row._mapping.items()
                        if name not in ("roles", "role_catalogue") or column != "version"
                    ]
                )
                for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"')
            )
            for name in tables
            if name != "alembic_version"
        }


def fill() -> None:
    """Put a row of believable values into every table that migrations leave empty."""
    metadata = sa.MetaData()
    with db.engine.begin() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if table.name == "alembic_version" or "single_row" in str(_checks(table)):
                continue  # Migrations themselves add single rows.
            if table.name == "tally_changes":
                continue  # Triggers write it, as rows of users come in.
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                continue
            row = _row(connection, table)
            connection.execute(table.insert().values(row))
            if table.name == "roles":  # A role inherits another one.
                connection.execute(table.insert().values(row | {"name": "y"}))


def _checks(table: sa.Table) -> list[str]:
    return [str(c.name) for c in table.constraints if isinstance(c, sa.CheckConstraint)]


CHOICES = {
    "state": "queued",
    "status": "active",
    "outcome": "success",
    "actor_type": "system",
    "kind": "api",
    "purpose": "invitation",
}


def _row(connection: sa.Connection, table: sa.Table) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in table.columns:
        if table.name == "api_keys" and column.name == "user_id":
            row[column.name] = None  # A key has one owner: here a service account.
        elif column.foreign_keys:
            (key,) = column.foreign_keys
            row[column.name] = connection.execute(
                sa.select(key.column).order_by(key.column).offset(_offset(column)).limit(1)
            ).scalar_one()
        elif table.name == "idempotency_keys" and column.name == "status":
            row[column.name] = 201
        elif column.name in CHOICES and isinstance(column.type, sa.String):
            row[column.name] = CHOICES[column.name]
        else:
            row[column.name] = _value(connection, column)
    return row


def _offset(column: sa.Column[Any]) -> int:
    return 1 if column.name == "parent_name" else 0


def _value(connection: sa.Connection, column: sa.Column[Any]) -> Any:
    is_sqlite = connection.dialect.name == "sqlite"
    kind = column.type
    if isinstance(kind, sa.Uuid) or (is_sqlite and str(kind) == "CHAR(32)"):
        return UUID(int=7).hex if is_sqlite else UUID(int=7)
    if isinstance(kind, sa.DateTime):
        return NOW.replace(tzinfo=None) if is_sqlite else NOW
    if isinstance(kind, sa.Date):
        return NOW.date()
    if isinstance(kind, sa.Boolean):
        return False
    if isinstance(kind, sa.JSON):
        return {"a": 1}
    if isinstance(kind, sa.LargeBinary):
        return b"\0" * 40
    if isinstance(kind, sa.Integer):
        return 1
    if isinstance(kind, sa.String):
        return "x"
    return json.dumps({}) if "JSON" in str(kind) else None


def test_an_empty_database_becomes_what_the_models_say(app: Flask) -> None:
    flask_migrate.upgrade()

    assert differences() == []


def test_the_last_migration_goes_all_the_way_down_to_nothing(app: Flask) -> None:
    empty = schema()
    flask_migrate.upgrade()

    flask_migrate.downgrade(revision="base")

    left = [line for line in schema().splitlines() if not OF_TOOLS.search(line)]
    assert left == empty.splitlines()


@pytest.mark.thorough
def test_each_migration_goes_down_and_up_with_rows_in_place(app: Flask) -> None:
    """Down and up again the schema is the same, and so are rows that the step does not own."""
    for below, revision in pairwise(["base", *revisions()]):
        fill()
        kept = contents()

        flask_migrate.upgrade(revision=revision)
        before = schema()
        fill()
        flask_migrate.downgrade(revision=below)
        after_down = contents()
        flask_migrate.upgrade(revision=revision)

        assert after_down == kept, revision
        assert schema() == before, revision


@pytest.mark.thorough
def test_rows_from_before_the_seals_are_sealed(app: Flask) -> None:
    services: Services = app.extensions["userapi"]
    flask_migrate.upgrade()
    with transaction():
        for _ in range(3):
            services.audit.record(AuditAction.USER_UPDATED, actor=system_actor("tests"))
    flask_migrate.downgrade(revision="0004")

    flask_migrate.upgrade()

    assert services.audit_seals.seal_due() == 3
    services.audit_verification.verify(lambda finding: pytest.fail(str(finding)))


@pytest.mark.thorough
def test_rows_from_before_the_triggers_are_protected(app: Flask) -> None:
    flask_migrate.upgrade(revision="0001")
    fill()

    flask_migrate.upgrade()

    with pytest.raises(sa.exc.DBAPIError, match="cannot be changed or deleted"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE audit_logs SET action = 'x'")


def test_revisions_are_counted_without_a_gap() -> None:
    assert revisions() == [f"{number:04d}" for number in range(1, len(revisions()) + 1)]


@pytest.mark.thorough
def test_existing_users_are_counted_by_the_migration(app: Flask) -> None:
    flask_migrate.upgrade(revision="0008")
    fill()

    flask_migrate.upgrade()

    with db.engine.connect() as connection:
        counts = connection.exec_driver_sql("SELECT kind, key, count FROM tallies").all()
    assert sorted(map(tuple, counts)) == [
        ("last_login_day", "2026-01-02", 1),
        ("role", "admin", 1),
        ("status", "active", 1),
    ]


@pytest.mark.thorough
def test_roles_from_before_know_the_status_of_their_users(app: Flask) -> None:
    flask_migrate.upgrade(revision="0010")
    fill()

    flask_migrate.upgrade()

    with db.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT role_name, user_status FROM user_roles").all()
    assert list(map(tuple, rows)) == [("admin", "active")]
