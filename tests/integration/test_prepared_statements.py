"""Prepared statements on PostgreSQL: prepared once for a connection, and replaced if unusable."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, bindparam, select

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser
from userapi.infrastructure.database import PreparedStatement, autocommit, reading

_things = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text))
BY_ID = select(_things.c.name, bindparam("note", type_=Text)).where(
    _things.c.id == bindparam("of_thing"), _things.c.name.like("100%")
)
FOUND = ("100 % of it", "'; DROP TABLE things; --")
PARAMETERS = {"of_thing": 1, "note": FOUND[1]}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """Return an application with one connection in its pool."""
    return make_app(DATABASE_POOL_SIZE="1")


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    """Return the connection of the pool, with a table of things."""
    with app.app_context(), autocommit() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id integer PRIMARY KEY, name text)")
        connection.exec_driver_sql("INSERT INTO things VALUES (1, '100 %% of it')", ())
        yield connection
        connection.exec_driver_sql("DROP TABLE things")


@pytest.fixture
def by_id() -> PreparedStatement:
    return PreparedStatement("thing_by_id", BY_ID)


def prepared_names(connection: Connection) -> list[str]:
    rows = connection.exec_driver_sql("SELECT name FROM pg_prepared_statements ORDER BY name")
    return list(rows.scalars())


def plans_used(connection: Connection) -> int:
    row = connection.exec_driver_sql(
        "SELECT sum(generic_plans + custom_plans) FROM pg_prepared_statements"
    )
    return int(row.scalar_one())


def test_it_is_prepared_once_and_returns_the_row(
    connection: Connection, by_id: PreparedStatement
) -> None:
    rows = [by_id.one_or_none(connection, PARAMETERS) for _ in range(3)]
    missing = by_id.one_or_none(connection, PARAMETERS | {"of_thing": 2})

    assert rows == [FOUND] * 3
    assert missing is None
    (name,) = prepared_names(connection)
    assert name.startswith("thing_by_id_")
    assert plans_used(connection) == 4


def test_two_statements_of_one_name_are_kept_apart(
    connection: Connection, by_id: PreparedStatement
) -> None:
    other = PreparedStatement("thing_by_id", select(_things.c.id).where(_things.c.id == 1))

    assert by_id.one_or_none(connection, PARAMETERS) == FOUND
    assert other.one_or_none(connection, {}) == (1,)


def _forget_all(connection: Connection) -> None:
    connection.exec_driver_sql("DEALLOCATE ALL")


def _change_a_type(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE things ALTER COLUMN name TYPE varchar(50)")


@pytest.mark.parametrize("change", [_forget_all, _change_a_type])
def test_it_runs_unprepared_if_the_plan_cannot_be_used(
    connection: Connection, by_id: PreparedStatement, change: Callable[[Connection], None]
) -> None:
    by_id.one_or_none(connection, PARAMETERS)
    change(connection)

    assert by_id.one_or_none(connection, PARAMETERS) == FOUND
    assert by_id.one_or_none(connection, PARAMETERS) == FOUND


def test_it_runs_unprepared_if_another_client_has_prepared_the_name(
    connection: Connection, by_id: PreparedStatement
) -> None:
    by_id.one_or_none(connection, PARAMETERS)
    (name,) = prepared_names(connection)
    again = PreparedStatement("thing_by_id", BY_ID)
    connection.connection.info["prepared_statements"] = set()

    assert again.one_or_none(connection, PARAMETERS) == FOUND
    assert prepared_names(connection) == [name]


def test_a_failed_execution_leaves_it_usable(connection: Connection) -> None:
    quotient = PreparedStatement(
        "quotient", select(bindparam("of", type_=Integer) / bindparam("by", type_=Integer))
    )

    with pytest.raises(Exception, match="division by zero"):
        quotient.one_or_none(connection, {"of": 6, "by": 0})

    assert quotient.one_or_none(connection, {"of": 6, "by": 2}) == (3,)
    assert len(prepared_names(connection)) == 1


def test_a_refresh_is_prepared(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    client, token = JsonClient(app), log_in(make_user("robin")).refresh_token

    for _ in range(3):
        answer: Any = client.post("/api/v1/auth/refresh", json={"refresh_token": token})
        token = answer.get_json()["refresh_token"]

    with app.app_context(), reading() as connection:
        (name,) = prepared_names(connection)
        assert name.startswith("rotate_session_")
        assert plans_used(connection) == 3
