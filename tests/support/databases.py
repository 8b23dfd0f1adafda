"""Databases for tests: migrated once in a run, copied for each worker, restored after each test.

Tests commit their transactions, so nothing can be rolled back. Instead every table gets the rows
back that the migrations left, within a few milliseconds on both kinds of database.
"""

import fcntl
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2.extensions import connection as Connection
from sqlalchemy.orm import Session

from userapi.infrastructure.database import statement_timeout, transaction


@contextmanager
def patient_transaction() -> Iterator[Session]:
    """Open a transaction for the rows of a test: the service's time-outs are not for its set-up."""
    with transaction() as session, statement_timeout(session, None):
        yield session


Migrate = Callable[[str], None]

# Names the directory that all workers of a run share.
RUN_DIRECTORY = "TEST_RUN_DIRECTORY"

# Lives in a schema of its own, which neither the models nor the migrations know about.
_RESTORE = """
CREATE FUNCTION pristine.restore() RETURNS void LANGUAGE plpgsql
    -- Without triggers: those on audit rows reject every DELETE, foreign keys demand an order.
    SET session_replication_role = replica
    SET lock_timeout = '10s'
AS $restore$
BEGIN
{statements}
END
$restore$
"""
_RESTORE_SEEDED = """
IF EXISTS (
    (SELECT row::text FROM {table} row EXCEPT ALL SELECT row::text FROM pristine.{table} row)
    UNION ALL
    (SELECT row::text FROM pristine.{table} row EXCEPT ALL SELECT row::text FROM {table} row)
) THEN
    DELETE FROM public.{table};
    INSERT INTO public.{table} ({columns}) OVERRIDING SYSTEM VALUE
        SELECT {columns} FROM pristine.{table};
END IF;
"""


class MigratedDatabase(Protocol):
    """A migrated database that one test worker has for itself."""

    @property
    def url(self) -> str:
        """The URL for the service's settings."""
        ...

    def restore(self) -> None:
        """Restore the rows that the migrations left. Needs all connections to be idle."""
        ...

    def drop(self) -> None:
        """Remove the database."""
        ...


class PostgresDatabase:
    """A copy of the migrated template on a PostgreSQL server."""

    def __init__(
        self, server_url: str, name: str, *, run_directory: Path, migrate: Migrate
    ) -> None:
        self._server_url = server_url
        self._name = name
        self.url = _with_database(server_url, name)
        template = f"{run_directory.name.replace('-', '_')}_template"
        with _only_one(run_directory / "postgresql.lock") as first:
            if first:
                _make_template(server_url, template, migrate)
        with _connected(server_url) as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._connection: Connection | None = None

    def restore(self) -> None:
        """Restore the rows that the migrations left."""
        if self._connection is None:
            self._connection = psycopg2.connect(self.url)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pristine.restore()")

    def drop(self) -> None:
        """Drop the database and end its connections."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with _connected(self._server_url) as connection, connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{self._name}" WITH (FORCE)')


class SqliteDatabase:
    """A copy of the migrated template as a file; `disconnect` closes what a service holds open."""

    def __init__(self, path: Path, *, run_directory: Path, migrate: Migrate) -> None:
        self._path = path
        self._template = sqlite_template(run_directory, migrate)
        self.url = f"sqlite:///{path}"
        self.disconnect: Callable[[], None] = _nothing
        shutil.copyfile(self._template, self._path)

    def restore(self) -> None:
        """Put a fresh copy of the template in place."""
        self.disconnect()
        self._remove_journals()
        shutil.copyfile(self._template, self._path)

    def drop(self) -> None:
        """Remove the file."""
        self.disconnect()
        self._remove_journals()
        self._path.unlink(missing_ok=True)

    def _remove_journals(self) -> None:
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def sqlite_template(run_directory: Path, migrate: Migrate) -> Path:
    """Return a migrated SQLite database to copy; the first call of a run migrates it."""
    template = run_directory / "template.sqlite3"
    with _only_one(run_directory / "sqlite.lock") as first:
        if first:
            draft = run_directory / "draft.sqlite3"
            migrate(f"sqlite:///{draft}")
            with sqlite3.connect(draft) as connection:
                # One file without a journal.
                connection.execute("VACUUM INTO ?", (str(template),))
            connection.close()
    return template


def drop_template(server_url: str, run_directory: Path) -> None:
    """Remove the template of a run from a server that outlives it."""
    name = f"{run_directory.name.replace('-', '_')}_template"
    with _connected(server_url) as connection, connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _make_template(server_url: str, name: str, migrate: Migrate) -> None:
    with _connected(server_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0")
    url = _with_database(server_url, name)
    migrate(url)
    with _connected(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA pristine")
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1"
        )
        statements = []
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")
            (seeded,) = cursor.fetchone() or (False,)
            if seeded:
                cursor.execute(f"CREATE TABLE pristine.{table} AS TABLE {table}")
                statements.append(
                    _RESTORE_SEEDED.format(table=table, columns=_columns_of(connection, table))
                )
            else:
                statements.append(f"DELETE FROM public.{table};")
        cursor.execute(_RESTORE.format(statements="\n".join(statements)))


def _columns_of(connection: Connection, table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = ''",
            (table,),
        )
        (columns,) = cursor.fetchone() or ("",)
    return str(columns)


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _only_one(lock: Path) -> Iterator[bool]:
    """Let one worker at a time in; return whether it is the first that reaches this block."""
    done = lock.with_suffix(".done")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield not done.exists()
        done.touch()


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _nothing() -> None:
    """Serve as `disconnect` until a service has opened the file."""
