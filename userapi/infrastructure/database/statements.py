"""Parts of statements that PostgreSQL and SQLite write differently, written once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Table,
    bindparam,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from userapi.infrastructure.database.engine import uses_postgresql

DIALECTS = ("postgresql", "sqlite")

Values = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def is_postgresql(connection: Connection | Session) -> bool:
    """Return whether a connection or session uses PostgreSQL."""
    return dialect_of(connection) == "postgresql"


def dialect_of(connection: Connection | Session) -> str:
    """Return the name of the dialect of a connection or session."""
    if isinstance(connection, Session):
        return connection.get_bind().dialect.name
    return connection.dialect.name


def insert_for(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that can have an ON CONFLICT clause."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def upsert(
    dialect: str,
    table: Table,
    values: Values,
    *,
    changes: Mapping[str, Any],
    where: ColumnElement[bool] | None = None,
) -> Insert:
    """Return an INSERT that applies `changes` to a row that exists already.

    Rows are the same if their primary keys are. `excluded` refers to the values of the row that
    was not inserted. A row for which `where` is false stays as it is and is not returned.
    """
    return (
        insert_for(dialect, table)
        .values(values)
        .on_conflict_do_update(
            index_elements=list(table.primary_key.columns), set_=changes, where=where
        )
    )


def excluded(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the value of a column in the row that an `upsert` could not insert."""
    return literal_column(f"excluded.{column.key}", column.type)


def notify(session: Session, channel: str) -> None:
    """Wake the workers that listen on a channel when the open transaction commits.

    PostgreSQL delivers one notification per transaction, however often this is called. On SQLite
    workers poll.
    """
    connection = session.connection()
    if is_postgresql(connection):
        connection.exec_driver_sql(f"NOTIFY {channel}")


def supports_writable_ctes() -> bool:
    """Return whether one statement can change several tables: only on PostgreSQL."""
    return uses_postgresql()


def insert_cte(
    table: Table, source: FromClause, *, names: Iterable[str], **columns: ColumnElement[Any]
) -> Insert:
    """Return an INSERT of one row for each row of `source`, for use as a CTE.

    It sets the columns `names`: those in `columns` to these expressions, the others to the
    parameters that `cte_parameters` returns.
    """
    values = {
        name: columns.get(name, bindparam(_parameter(table, name), type_=table.c[name].type))
        for name in names
    }
    return insert(table).from_select(list(values), select(*values.values()).select_from(source))


def cte_parameters(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as the parameters of a statement with `insert_cte`."""
    return {_parameter(table, name): value for name, value in row.items()}


def _parameter(table: Table, name: str) -> str:
    return f"{table.name}_{name}"


def violated_constraint(error: IntegrityError) -> str | None:
    """Return the name of the constraint that a statement violated, if the database reports it."""
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        name: str | None = diagnostics.constraint_name
        return name
    # SQLite reports the columns: "UNIQUE constraint failed: users.username".
    message = str(error.orig)
    _, _, columns = message.partition("UNIQUE constraint failed: ")
    if not columns:
        return None
    table = columns.split(".", 1)[0]
    names = "_".join(part.strip().split(".", 1)[1] for part in columns.split(","))
    return f"uq_{table}_{names}"
