"""Statements that PostgreSQL parses and plans once for each connection, not for each execution.

psycopg2 has no function for them, so PREPARE and EXECUTE are sent as SQL. A prepared statement
belongs to a connection of the server. A pooler in transaction mode shares those among its clients,
so behind one, statements run unprepared.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2.errors import DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName
from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.exc import DBAPIError

# In the information of a pooled connection: the names of the statements that it has prepared, or
# None if it must not prepare any.
PREPARED = "prepared_statements"
# Another client of a pooler has prepared the same name, or the server has not; or a column has
# another type than at PREPARE. Each is raised before the statement has any effect.
_UNUSABLE = (DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName)


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter: its name, and the conversion of its values; None if there is none."""

    name: str
    convert: Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The SQL of a prepared statement, and its parameters in their order."""

    name: str
    prepare: str
    execute: str
    parameters: tuple[_Parameter, ...]
    constants: Mapping[str, Any]

    def values(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of the parameters as the driver expects them."""
        known = {**self.constants, **given}
        return tuple(
            known[parameter.name]
            if parameter.convert is None
            else parameter.convert(known[parameter.name])
            for parameter in self.parameters
        )


class PreparedStatement:
    """A statement of PostgreSQL that returns at most one row, prepared on its first execution.

    It must run outside of a transaction. If a connection cannot use the plan, it runs again without
    one.
    """

    def __init__(self, name: str, statement: Select[Any]) -> None:
        """Create the statement; `name` begins its name in pg_prepared_statements."""
        self._name = name
        self._statement = statement
        self._plan: _Plan | None = None

    def one_or_none(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """Return the row, or None if there is none. Raises as `Connection.execute` does."""
        prepared: set[str] | None = connection.connection.info[PREPARED]
        if prepared is None:
            return self._run_unprepared(connection, parameters)
        if self._plan is None:
            self._plan = _plan_of(self._name, self._statement, connection.dialect)
        plan = self._plan
        text = plan.execute
        if plan.name not in prepared:
            # One round trip for both. The server keeps the plan even if the execution fails.
            text = f"{plan.prepare}; {plan.execute}"
            prepared.add(plan.name)
        try:
            row = connection.exec_driver_sql(text, plan.values(parameters)).one_or_none()
        except DBAPIError as exc:
            if not isinstance(exc.orig, _UNUSABLE):
                raise
            connection.connection.info[PREPARED] = None
            return self._run_unprepared(connection, parameters)
        return None if row is None else tuple(row)

    def _run_unprepared(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        row = connection.execute(self._statement, dict(parameters)).one_or_none()
        return None if row is None else tuple(row)


def _plan_of(name: str, statement: Select[Any], dialect: Dialect) -> _Plan:
    # The dialect of asyncpg writes parameters as PREPARE expects them, with their types: $1::UUID.
    compiled = statement.compile(dialect=asyncpg.dialect())  # type: ignore[no-untyped-call]
    parameters = tuple(
        _Parameter(name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
        for name in compiled.positiontup or ()
    )
    places = ", ".join(["%s"] * len(parameters))
    text = str(compiled)
    # Two statements under one name would be confused if a pooler was not detected.
    name = f"{name}_{zlib.crc32(text.encode()):08x}"
    return _Plan(
        name=name,
        # The text is sent with parameters, so the driver reads a percent sign as a place.
        prepare=f"PREPARE {name} AS {text.replace('%', '%%')}",
        execute=f"EXECUTE {name} ({places})",
        parameters=parameters,
        constants=compiled.params,
    )
