"""Migrations that fail, are repeated, run concurrently, wait for a lock or block others."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask

from tests.migrations.test_migrations import contents, fill, revisions, schema
from tests.support.databases import PostgresDatabase
from tests.support.deployments import ENVIRONMENT, Backend, build_app, disconnect
from tests.support.polling import wait_until
from userapi.clock import ManualClock
from userapi.infrastructure.database import db
from userapi.settings import PROJECT_ROOT

MakeDatabase = Callable[[str], PostgresDatabase]
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, make_database: MakeDatabase) -> str:
    """Return the URL of an empty database."""
    if request.param is Backend.SQLITE:
        return f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    url = make_database(f"repeated_{uuid4().hex[:8]}").url
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA pristine CASCADE; DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url


@pytest.fixture
def app(url: str, tmp_path: Path) -> Iterator[Flask]:
    """Return an application on that database."""
    app = build_app(
        {**ENVIRONMENT, "DATABASE_URL": url}, clock=ManualClock(), instance_dir=tmp_path
    )
    with app.app_context():
        yield app
    disconnect(app)


on_postgresql = pytest.mark.parametrize("url", [Backend.POSTGRESQL], ids=str, indirect=True)


class PowerCut(Exception):
    """What ends a migration in the middle."""


class Fault:
    """Ends a migration at its statement of a number: before it runs or, `late`, after."""

    def __init__(self, number: int, *, late: bool = False) -> None:
        self._number = number
        self._late = late
        self._count = 0
        self.statement: str | None = None

    @contextmanager
    def injected(self) -> Iterator[None]:
        events = [("before_cursor_execute", self._before), ("after_cursor_execute", self._after)]
        for name, listener in events:
            sa.event.listen(db.engine, name, listener)
        try:
            yield
        except PowerCut:
            pass
        finally:
            for name, listener in events:
                sa.event.remove(db.engine, name, listener)

    @property
    def builds_index(self) -> bool:
        return (self.statement or "").startswith("CREATE INDEX CONCURRENTLY")

    def _before(self, _c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        self._count += 1
        if self._count == self._number:
            self.statement = statement
            if not self._late:
                raise PowerCut()

    def _after(self, *_arguments: Any) -> None:
        if self._late and self._count == self._number:
            raise PowerCut()


def upgrade_through_faults(revision: str) -> int:
    """Upgrade by tries that get one statement further each time; return how many there were."""
    tries = 0
    while True:
        tries += 1
        for late in (False, True):
            fault = Fault(tries, late=late)
            with fault.injected():
                flask_migrate.upgrade(revision=revision)
            if fault.statement is None:
                return tries
            if late and fault.builds_index:
                _invalidate_newest_index()
            if not fault.builds_index:
                break


def _invalidate_newest_index() -> None:
    """Leave the index as a CREATE INDEX CONCURRENTLY does that was cut off."""
    with db.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = ("
            " SELECT max(oid) FROM pg_class"
            " WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace)"
        )


def facts() -> tuple[str, dict[str, int], list[str]]:
    """Return what a migration leaves: the schema, how many rows, and the counts of users."""
    rows = contents()
    return schema(), {table: len(found) for table, found in rows.items()}, rows.get("tallies", [])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "url",
    [Backend.POSTGRESQL, pytest.param(Backend.SQLITE, marks=pytest.mark.slow)],
    ids=str,
    indirect=True,
)
def test_each_migration_can_be_repeated_after_a_failure_at_any_statement(
    app: Flask, url: str
) -> None:
    """After a lock time-out in it, 0011 found its own column in its way for ever."""
    expected = {}
    for revision in revisions():
        flask_migrate.upgrade(revision=revision)
        expected[revision] = facts()
        fill()
    flask_migrate.downgrade(revision="base")

    for revision in revisions():
        tries = upgrade_through_faults(revision)

        assert tries > 3
        assert facts() == expected[revision], revision
        fill()

    if url.startswith("postgresql"):
        with db.engine.connect() as connection:
            assert connection.exec_driver_sql(INVALID).all() == []


@pytest.mark.thorough
@on_postgresql
def test_a_migration_waits_for_a_transaction_that_is_open_for_long(app: Flask, url: str) -> None:
    """Any transaction of ten seconds ended the upgrade, and 0011 could not be repeated then."""
    flask_migrate.upgrade(revision="0010")
    fill()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.connect() as blocker:
        blocker.exec_driver_sql("SELECT * FROM user_roles")  # Its lock holds up the new column.
        migrating = threading.Thread(target=_upgrade_in, args=(app,))
        migrating.start()
        with engine.connect() as observer:
            # It waits, gives up, and waits again.
            wait_until(lambda: _waits_for_lock(observer))
            wait_until(lambda: not _waits_for_lock(observer))
            wait_until(lambda: _waits_for_lock(observer))
        blocker.rollback()
        migrating.join(60)
    engine.dispose()

    assert not migrating.is_alive()
    with db.engine.connect() as connection:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    assert revision == revisions()[-1]


def _upgrade_in(app: Flask) -> None:
    with app.app_context():
        flask_migrate.upgrade()


def _waits_for_lock(connection: sa.Connection) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'user_roles'::regclass"
    waiting = connection.exec_driver_sql(query).scalar()
    connection.rollback()
    return bool(waiting)


@pytest.mark.parametrize(
    ("url", "first"),
    [
        pytest.param(Backend.POSTGRESQL, "base", marks=pytest.mark.slow),
        # tests/cluster/test_migrations_at_once.py does the same with four of them.
        pytest.param(Backend.POSTGRESQL, "0010", marks=pytest.mark.slow),
        pytest.param(Backend.SQLITE, "base", marks=pytest.mark.slow),
    ],
    indirect=["url"],
)
def test_several_upgrades_at_once_all_succeed(
    app: Flask, url: str, first: str, tmp_path: Path
) -> None:
    """One of two ended with a deadlock: who waited for its turn was waited for by an index."""
    if first != "base":
        flask_migrate.upgrade(revision=first)
        fill()
    disconnect(app)
    command = [str(Path(sys.executable).parent / "flask"), "--app", "wsgi", "db", "upgrade"]
    environment = {**os.environ, **ENVIRONMENT, "DATABASE_URL": url, "INSTANCE_DIR": str(tmp_path)}

    upgrades = [
        subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [upgrade.communicate(timeout=240)[0] for upgrade in upgrades]

    assert [upgrade.returncode for upgrade in upgrades] == [0] * 3, "\n".join(outputs)
    with db.engine.connect() as connection:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        assert revision == revisions()[-1]
        if url.startswith("postgresql"):
            assert connection.exec_driver_sql(INVALID).all() == []


@pytest.mark.thorough
@on_postgresql
def test_no_migration_locks_a_table_that_is_in_use_for_long(app: Flask) -> None:
    """Nothing builds an index, checks rows or copies them under a lock that writers wait for."""
    faults = []
    for revision in revisions():
        with db.engine.connect() as connection:
            existing = set(sa.inspect(connection).get_table_names())
        statements: list[str] = []

        def note(
            _c: Any, _cursor: Any, statement: str, *_more: Any, into: Any = statements
        ) -> None:
            into.append(" ".join(statement.split()))

        sa.event.listen(db.engine, "before_cursor_execute", note)
        flask_migrate.upgrade(revision=revision)
        sa.event.remove(db.engine, "before_cursor_execute", note)
        faults += [(revision, s) for s in statements if _locks_for_long(s, existing)]
        fill()

    assert faults == []


LONG = re.compile(
    r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)\S+ ON (\w+)"
    r"|DROP INDEX (?!CONCURRENTLY)(\w+)"
    r"|ALTER TABLE (\w+) ADD (?:CONSTRAINT (?!.*NOT VALID)|UNIQUE|PRIMARY)"
    r"|ALTER TABLE (\w+) ALTER COLUMN \w+ TYPE"
    r"|ALTER TABLE (\w+) ALTER COLUMN \w+ SET NOT NULL"
    r"|REINDEX (?!.*CONCURRENTLY)|VACUUM FULL|CLUSTER"
)


def _locks_for_long(statement: str, existing: set[str]) -> bool:
    found = LONG.search(statement)
    if found is None:
        return False
    tables = [name for name in found.groups() if name]
    return not tables or any(name in existing for name in tables)


@pytest.mark.thorough
@on_postgresql
def test_no_migration_waits_in_a_circle_with_a_request(app: Flask) -> None:
    """A request writes its audit row last, so a migration locks the audit log last as well.

    Otherwise a request that has locked a user waits for the audit log, and the migration, which has
    locked that, for the users: PostgreSQL ends one of them.
    """
    faults = []
    for revision in revisions():
        with db.engine.connect() as connection:
            existing = set(sa.inspect(connection).get_table_names())
        # Each statement with the number of its transaction; one in autocommit has its own.
        statements: list[tuple[int, str]] = []
        transactions = [0]

        def note(
            connection: Any, _cursor: Any, statement: str, *_more: Any, into: Any = statements
        ) -> None:
            if connection.connection.dbapi_connection.autocommit:
                transactions[0] += 1
            into.append((transactions[0], " ".join(statement.split())))

        def end(_connection: Any, count: Any = transactions) -> None:
            count[0] += 1

        sa.event.listen(db.engine, "before_cursor_execute", note)
        sa.event.listen(db.engine, "commit", end)
        flask_migrate.upgrade(revision=revision)
        sa.event.remove(db.engine, "commit", end)
        sa.event.remove(db.engine, "before_cursor_execute", note)
        faults += [(revision, s) for s in _locked_after_the_audit_log(statements, existing)]
        fill()

    assert faults == []


# What takes a lock that waits for writers, or writes: of a table, or of those that it refers to.
LOCKED = re.compile(
    r"ALTER TABLE (?:ONLY )?(\w+)|REFERENCES (\w+)|(?:UPDATE|INSERT INTO|DELETE FROM) (\w+)"
    r"|CREATE TRIGGER .*? ON (\w+)"
)


def _locked_after_the_audit_log(
    statements: list[tuple[int, str]], existing: set[str]
) -> Iterator[str]:
    """Yield what locks another table in a transaction that has locked the audit log."""
    holding = None
    for transaction, statement in statements:
        tables = {name for found in LOCKED.findall(statement) for name in found if name} & existing
        if holding == transaction and tables - {"audit_logs", "alembic_version"}:
            yield statement
        if re.match(r"ALTER TABLE audit_logs\b", statement):
            holding = transaction
