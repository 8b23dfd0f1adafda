"""Each migration leaves the code of the previous release working, unless it says otherwise.

The statements that a migration really runs are checked, not its text: helpers and loops included.
A migration whose docstring says `Step: contract.` may remove what the release before it no longer
uses.
"""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask

from tests.migrations.test_migrations import revisions
from tests.support.databases import PostgresDatabase
from tests.support.deployments import ENVIRONMENT, build_app, disconnect
from userapi.clock import ManualClock
from userapi.infrastructure.database import db
from userapi.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "migrations" / "versions"
STEP = re.compile(r"^Step: (expand|contract)\.$", re.MULTILINE)
BREAKING = {
    "drops a column": r"\bDROP COLUMN\b",
    "drops a table": r"\bDROP TABLE (?:IF EXISTS )?(?P<dropped>\w+)",
    "renames": r"^ALTER (?:TABLE|INDEX|VIEW|SEQUENCE)\b.*\bRENAME\b",
    "requires a value": r"\bALTER COLUMN \w+ SET NOT NULL\b",
    "changes a type": r"\bALTER COLUMN \w+ (?:SET DATA )?TYPE\b",
    "adds a column without a default": r"\bADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b",
    "validates existing rows": r"^ALTER TABLE (?P<checked>\w+) ADD CONSTRAINT (?!.*\bNOT VALID\b)",
}


def breaks(statement: str, tables: set[str]) -> str | None:
    """Return what a statement does to code that knows only these tables, or None."""
    flat = " ".join(statement.split())
    if flat.upper().startswith(("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")):
        return None
    for name, pattern in BREAKING.items():
        found = re.search(pattern, flat, re.IGNORECASE)
        if found is None:
            continue
        touched = next(iter(found.groupdict().values()), None)
        # A table that the migration itself creates is not used yet.
        if touched is None or touched in tables:
            return f"{name}: {flat}"
    return None


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE users DROP COLUMN phone",
        "DROP TABLE users",
        "DROP TABLE IF EXISTS users",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE users RENAME phone TO telephone",
        "ALTER TABLE users ALTER COLUMN phone SET NOT NULL",
        "ALTER TABLE users ALTER COLUMN phone TYPE text",
        "ALTER TABLE users ADD COLUMN country VARCHAR(2) NOT NULL",
        "ALTER TABLE users ADD CONSTRAINT ck CHECK (phone <> '')",
    ],
)
def test_what_breaks_the_previous_release_is_found(statement: str) -> None:
    assert breaks(statement, {"users"}) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE people (id UUID NOT NULL)",
        "DROP TABLE IF EXISTS people",
        "ALTER TABLE users ADD COLUMN country VARCHAR(2)",
        "ALTER TABLE users ADD COLUMN country VARCHAR(2) DEFAULT 'NO' NOT NULL",
        "ALTER TABLE users ADD CONSTRAINT ck CHECK (phone <> '') NOT VALID",
        "ALTER TABLE people ADD CONSTRAINT ck CHECK (phone <> '')",
        "DROP INDEX CONCURRENTLY IF EXISTS ix_users_phone",
    ],
)
def test_what_only_expands_passes(statement: str) -> None:
    assert breaks(statement, {"users"}) is None


def steps() -> dict[str, str | None]:
    """Return the step that each migration names, by revision."""
    return {
        path.name[:4]: (found[1] if (found := STEP.search(_docstring(path))) else None)
        for path in sorted(FOLDER.glob("[0-9]*.py"))
    }


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def test_every_migration_names_its_step() -> None:
    assert [revision for revision, step in steps().items() if step is None] == []


def test_a_migration_that_contracts_names_the_oldest_release_that_works() -> None:
    unnamed = [
        revision
        for revision, step in steps().items()
        if step == "contract"
        and "require_release(" not in next(FOLDER.glob(f"{revision}_*.py")).read_text("utf-8")
    ]

    assert unnamed == []


@pytest.fixture
def app(make_database: Callable[[str], PostgresDatabase], tmp_path: Path) -> Iterator[Flask]:
    """Return an application on an empty PostgreSQL database."""
    url = make_database("expand_only").url
    app = build_app(
        {**ENVIRONMENT, "DATABASE_URL": url}, clock=ManualClock(), instance_dir=tmp_path
    )
    with app.app_context():
        with db.engine.begin() as connection:
            connection.exec_driver_sql(
                "DROP SCHEMA pristine CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"
            )
        yield app
    disconnect(app)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Record all statements that go to the database."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", record)


def test_an_expanding_migration_removes_nothing(app: Flask) -> None:
    found = {}
    for revision in revisions():
        tables = set(sa.inspect(db.engine).get_table_names())
        with recorded() as statements:
            flask_migrate.upgrade(revision=revision)
        broken = [what for s in statements if (what := breaks(s, tables)) is not None]
        if broken and steps()[revision] == "expand":
            found[revision] = broken

    assert found == {}
