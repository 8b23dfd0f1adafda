"""The engine of the application: its pool, and the listeners that begin transactions."""

import time
from pathlib import Path
from typing import Any

import orjson
import psycopg2
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from psycopg2 import errors as pg_errors
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import NullPool

from userapi.infrastructure.database.clock_skew import measure_skew
from userapi.infrastructure.database.connections import (
    ServiceConnection,
    connect_alone,
    has_pooler,
)
from userapi.infrastructure.database.prepared import PREPARED
from userapi.infrastructure.database.tables import Base
from userapi.private_files import make_file
from userapi.settings import PROJECT_ROOT

POOL_WAIT_SECONDS = 1
PING_AFTER_IDLE_SECONDS = 5.0
PING_SECONDS = 1.0
# Errors after which no connection of the pool can be expected to work: the server shuts down, or
# a failover or a change of routing has left the connections on a server that is read-only.
SERVER_CHANGED = (
    pg_errors.AdminShutdown,
    pg_errors.CannotConnectNow,
    pg_errors.CrashShutdown,
    pg_errors.ReadOnlySqlTransaction,
)

# SQLAlchemy does not accept every URL with several hosts that libpq accepts. It needs the name of
# the driver only.
_ANY_POSTGRESQL = "postgresql+psycopg2://"
_DIRECT_URL = "userapi.direct_url"
_READER = "userapi.reader"


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


_OPTIONS: dict[str, Any] = {
    "json_serializer": _dump_json,
    "json_deserializer": orjson.loads,
    # An error shows the statement without its values: those are hashes and addresses.
    "hide_parameters": True,
}

db = SQLAlchemy(metadata=Base.metadata, session_options={"expire_on_commit": False})


def init_app(
    app: Flask,
    *,
    database_url: str,
    direct_url: str,
    pool_size: int,
    tolerated_skew_seconds: int,
) -> None:
    """Bind a database to the application, with a pool of connections.

    `direct_url` is the same database without a pooler in front. A larger difference of the clocks
    than `tolerated_skew_seconds` is logged for each new connection.
    """
    on_sqlite = database_url.startswith("sqlite")
    specific = _sqlite_options() if on_sqlite else _postgresql_options()
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url if on_sqlite else _ANY_POSTGRESQL
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(pool_size) | specific
    db.init_app(app)
    with app.app_context():
        engine = db.engine
        if on_sqlite:
            _prepare_sqlite(engine)
            app.extensions[_READER] = engine.execution_options(begin="BEGIN")
        else:
            _prepare_postgresql(engine, database_url)
            _compare_clocks(engine, tolerated_skew_seconds)
            app.extensions[_READER] = engine.execution_options(begin=None)
    app.extensions[_DIRECT_URL] = None if direct_url == database_url else direct_url


def init_migrations(app: Flask) -> None:
    """Register the migrations of the application with Flask-Migrate."""
    # Imports Alembic, which only `flask db` needs.
    from flask_migrate import Migrate

    Migrate().init_app(app, db, directory=str(PROJECT_ROOT / "migrations"))


def reading_engine() -> Engine:
    """Return the engine whose connections read without a transaction on PostgreSQL."""
    engine: Engine = current_app.extensions[_READER]
    return engine


def direct_engine() -> Engine:
    """Return an engine whose connections do not go through a pooler, for migrations."""
    direct_url: str | None = current_app.extensions[_DIRECT_URL]
    if direct_url is None:
        return db.engine
    engine = create_engine(_ANY_POSTGRESQL, poolclass=NullPool, **_OPTIONS)
    _prepare_postgresql(engine, direct_url)
    return engine


def uses_postgresql() -> bool:
    """Return whether the application uses PostgreSQL and not SQLite."""
    return db.engine.dialect.name == "postgresql"


def _engine_options(pool_size: int) -> dict[str, Any]:
    return {
        **_OPTIONS,
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_WAIT_SECONDS,
        "pool_use_lifo": True,
    }


def _sqlite_options() -> dict[str, Any]:
    return {"connect_args": {"timeout": 5}}


def _postgresql_options() -> dict[str, Any]:
    # Without the extension hstore, which SQLAlchemy would look for on each new connection.
    return {"pool_recycle": 1800, "use_native_hstore": False}


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def keep_private(*_arguments: Any) -> None:
        path = Path(engine.url.database or "")
        # Where the folder is missing the driver raises.
        if path.parent.is_dir():
            make_file(path)

    @event.listens_for(engine, "connect")
    def configure(dbapi_connection: Any, _record: Any) -> None:
        # The driver would begin transactions late; the listener below begins them instead.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Deferred transactions that read and then write fail with "database is locked" as soon as
        # two run concurrently. One that acquires the write lock first waits for the other.
        statement = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
        connection.exec_driver_sql(statement)


def _compare_clocks(engine: Engine, tolerated_seconds: float) -> None:
    @event.listens_for(engine, "connect")
    def compare(dbapi_connection: Any, _record: Any) -> None:
        measure_skew(dbapi_connection, tolerated_seconds=tolerated_seconds)


def _prepare_postgresql(engine: Engine, database_url: str) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(*_arguments: Any) -> ServiceConnection:
        return connect_alone(database_url, "userapi")

    @event.listens_for(engine, "connect")
    def allow_preparing(dbapi_connection: Any, record: Any) -> None:
        record.info[PREPARED] = None if has_pooler(dbapi_connection) else set()

    @event.listens_for(engine, "handle_error")
    def discard_connections(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, SERVER_CHANGED):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = True

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        statement = options.get("begin", "BEGIN")
        # A migration uses autocommit to build an index without blocking requests.
        if statement is not None and options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(statement)

    @event.listens_for(engine, "checkin")
    def stamp(_dbapi_connection: Any, record: Any) -> None:
        record.info["last_used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        # A ping at every check-out would add a round trip to every request. A connection that was
        # used a moment ago needs none.
        if time.monotonic() - record.info.get("last_used", time.monotonic()) < (
            PING_AFTER_IDLE_SECONDS
        ):
            return
        try:
            dbapi_connection.reply_seconds = PING_SECONDS
            with dbapi_connection.cursor() as cursor:
                # Also notices that the server has become read-only.
                cursor.execute("SHOW transaction_read_only")
                (read_only,) = cursor.fetchone()
            dbapi_connection.reply_seconds = ServiceConnection.reply_seconds
        except psycopg2.Error as exc:
            raise DisconnectionError() from exc
        if read_only == "on":
            raise InvalidatePoolError()
