"""The database: engine, column types, and the one way to change something, `transaction()`.

Reads use `reading()`, which is a plain connection in autocommit: one round trip a query and nothing
to end afterwards. Everything that writes uses `transaction()`; building blocks that belong into
somebody's transaction call `require_transaction()`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import orjson
import psycopg2
import psycopg2.extensions
import uuid_utils.compat
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Engine,
    FromClause,
    Insert,
    Integer,
    MetaData,
    Table,
    TypeDecorator,
    Uuid,
    bindparam,
    event,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DisconnectionError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from userapi.infrastructure.database_encoding import (
    CLIENT_ENCODING,
    UnsupportedEncoding,
    require_unicode,
)
from userapi.infrastructure.deadlines import BoundedConnection
from userapi.private_files import make_file
from userapi.settings import PROJECT_ROOT, Settings, SettingsError

CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_TIMEOUT_MILLISECONDS = 3000
# What is asked of the server for each connection. deploy/pgbouncer/role.sql has what matters of it
# for where a pooler stands in between, which lets none of it through.
SESSION_SETTINGS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_MILLISECONDS}ms",
    "lock_timeout": f"{STATEMENT_TIMEOUT_MILLISECONDS}ms",
    "idle_in_transaction_session_timeout": "30000ms",
    "timezone": "UTC",
    # The server, too, notices soon that a client is gone, and frees what it had locked.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
# How much later than the server a connection is given up whose answer does not arrive.
ANSWER_MARGIN_SECONDS = 0.3
# For one statement, or one piece of a streamed answer, of an export.
LONG_READ_SECONDS = 60
POOL_WAIT_SECONDS = 1
PING_AFTER_IDLE_SECONDS = 5.0
PING_SECONDS = 1.0

_HOOKS = "userapi.after_commit"
_READER = "userapi.reader"


class ServiceConnection(BoundedConnection):
    """A connection to PostgreSQL whose every wait ends a moment after the server's own time-out."""

    answer_seconds = STATEMENT_TIMEOUT_MILLISECONDS / 1000 + ANSWER_MARGIN_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect, in autocommit: a read is one round trip, and transactions begin by a BEGIN.

        Switching a connection to and fro for each read would cost two round trips more.
        Raises UnsupportedEncoding.
        """
        super().__init__(*args, **kwargs)
        require_unicode(self)
        self.autocommit = True

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            with self.cursor() as cursor:
                cursor.execute(statement)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which keeps no zone, stores UTC as it is."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes and hand on UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a zone cannot be stored")
        return value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return what works on each value that is read; nothing on PostgreSQL, which knows zones.

        Sessions there are in UTC, so values come as they are wanted.
        """
        if dialect.name == "postgresql":
            return None
        return super().result_processor(dialect, coltype)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what was stored as an aware datetime in UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JsonDocument = JSON().with_variant(JSONB(), "postgresql")
# SQLite counts up only a column of type INTEGER.
CountingKey = BigInteger().with_variant(Integer(), "sqlite")

UuidKey = Annotated[UUID, mapped_column(Uuid(), primary_key=True)]
Moment = Annotated[datetime, mapped_column(UTCDateTime())]


class Base(DeclarativeBase):
    """Base of all models. Constraints have names, because code maps them to errors."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UTCDateTime(), UUID: Uuid(), dict[str, Any]: JsonDocument}


db = SQLAlchemy(metadata=Base.metadata, session_options={"expire_on_commit": False})


def table_of(model: type[DeclarativeBase]) -> Table:
    """Return the table of a model, for statements of SQLAlchemy Core."""
    table = model.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{model.__name__} is not mapped to a table")
    return table


def new_id() -> UUID:
    """Return a UUIDv7: ids made later sort later (RFC 9562)."""
    return uuid_utils.compat.uuid7()


def init_app(app: Flask, settings: Settings) -> None:
    """Bind the database that `settings` name to the application."""
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings)
    db.init_app(app)
    with app.app_context():
        engine = db.engine
        if settings.uses_sqlite:
            _prepare_sqlite(engine)
            app.extensions[_READER] = engine.execution_options(begin="BEGIN")
        else:
            _prepare_postgresql(engine)
            app.extensions[_READER] = engine.execution_options(begin=None)


def init_migrations(app: Flask) -> None:
    """Let Flask-Migrate find the migrations of the application."""
    # Imports Alembic, which no command but `flask db` needs.
    from flask_migrate import Migrate

    Migrate().init_app(app, db, directory=str(PROJECT_ROOT / "migrations"))


def engine_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the engine: every wait ends, so a lost database is a quick 503."""
    options: dict[str, Any] = {
        "json_serializer": _dump_json,
        "json_deserializer": orjson.loads,
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_WAIT_SECONDS,
        "pool_use_lifo": True,
        # An error tells the statement, not the values: those are hashes and addresses.
        "hide_parameters": True,
    }
    if settings.uses_sqlite:
        options["connect_args"] = {"timeout": 5}
        return options
    options["pool_recycle"] = 1800
    options["connect_args"] = connect_arguments("userapi")
    return options


def connect_arguments(application_name: str) -> dict[str, Any]:
    """Return how to connect to PostgreSQL, so that every wait has an end."""
    return {
        "connection_factory": ServiceConnection,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": application_name,
        "client_encoding": CLIENT_ENCODING,
        "tcp_user_timeout": 5000,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "options": " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items()),
    }


def connect_alone(settings: Settings, application_name: str) -> ServiceConnection:
    """Return a connection to PostgreSQL outside of the pool, in autocommit.

    For what belongs to a connection and not to a transaction: advisory locks and LISTEN.
    """
    url = settings.database_url.replace("+psycopg2", "", 1)
    connection: ServiceConnection = psycopg2.connect(url, **connect_arguments(application_name))
    return connection


def require_unicode_database(settings: Settings) -> None:
    """Raise SettingsError where the database cannot hold Unicode.

    One that does not answer is no reason to stop: it may be back before the first request.
    """
    if settings.uses_sqlite:
        return
    try:
        connect_alone(settings, "userapi-start").close()
    except UnsupportedEncoding as exc:
        raise SettingsError([str(exc)]) from exc
    except psycopg2.Error:
        return


def has_pooler(connection: psycopg2.extensions.connection) -> bool:
    """Return whether somebody between lends connections: PgBouncer gives numbers of its own."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone() or (None,)
    return bool(backend != connection.info.backend_pid)


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def keep_private(*_arguments: Any) -> None:
        path = Path(engine.url.database or "")
        # Where the folder is missing the driver says so.
        if path.parent.is_dir():
            make_file(path)

    @event.listens_for(engine, "connect")
    def configure(dbapi_connection: Any, _record: Any) -> None:
        # The driver would begin transactions late and lazily; the listener below does it instead.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails with "database is locked" as soon
        # as two do it; one that takes the write lock first waits its turn.
        statement = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
        connection.exec_driver_sql(statement)


def _prepare_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        statement = options.get("begin", "BEGIN")
        # A migration asks for autocommit where an index is built beside running requests.
        if statement is not None and options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(statement)

    @event.listens_for(engine, "checkin")
    def stamp(_dbapi_connection: Any, record: Any) -> None:
        record.info["last_used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        # A ping at every check-out is a round trip for every request; a connection that was used
        # a moment ago is as good as pinged.
        if time.monotonic() - record.info.get("last_used", time.monotonic()) < (
            PING_AFTER_IDLE_SECONDS
        ):
            return
        try:
            dbapi_connection.answer_seconds = PING_SECONDS
            with dbapi_connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            dbapi_connection.rollback()
            dbapi_connection.answer_seconds = ServiceConnection.answer_seconds
        except Exception as exc:  # Whatever the driver raises, this connection is of no use.
            raise DisconnectionError() from exc


@contextmanager
def statement_timeout(connection: Connection | Session, seconds: float | None) -> Iterator[None]:
    """Let the statements of the block run, and wait for locks, for so long; None is for ever.

    Belongs into a transaction, which holds no longer than it did before. Does nothing on SQLite.
    """
    if isinstance(connection, Session):
        connection = connection.connection()
    if connection.dialect.name != "postgresql":
        yield
        return
    milliseconds = int((seconds or 0) * 1000)
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"
    )
    driver_connection: Any = connection.connection.dbapi_connection
    driver_connection.answer_seconds = None if seconds is None else seconds + ANSWER_MARGIN_SECONDS
    try:
        yield
    finally:
        driver_connection.answer_seconds = ServiceConnection.answer_seconds
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout TO DEFAULT; SET LOCAL lock_timeout TO DEFAULT"
    )


@contextmanager
def reading() -> Iterator[Connection]:
    """Give a connection for reading. Each statement sees what is committed when it runs."""
    reader: Engine = current_app.extensions[_READER]
    with reader.connect() as connection:
        yield connection


def supports_writable_ctes() -> bool:
    """Return whether one statement can change several tables: PostgreSQL's can, SQLite's cannot."""
    return db.engine.dialect.name == "postgresql"


@contextmanager
def autocommit() -> Iterator[Connection]:
    """Give a connection for a change that is one statement, and so a transaction by itself.

    On PostgreSQL it is committed when it has run, elsewhere at the end of the block.
    """
    if not supports_writable_ctes():
        with db.engine.begin() as connection:
            yield connection
        return
    with reading() as connection:
        yield connection


def insert_cte(
    table: Table, source: FromClause, *, names: Iterable[str], **taken: ColumnElement[Any]
) -> Insert:
    """Return an INSERT, as a part of another statement, of one row for each row of `source`.

    It fills the columns `names`: those in `taken` come from there, the others from
    `cte_parameters`.
    """
    values = {
        name: taken.get(name, bindparam(_parameter(table, name), type_=table.c[name].type))
        for name in names
    }
    return insert(table).from_select(list(values), select(*values.values()).select_from(source))


def cte_parameters(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as the parameters of a statement with `insert_cte`."""
    return {_parameter(table, name): value for name, value in row.items()}


def _parameter(table: Table, name: str) -> str:
    return f"{table.name}_{name}"


@contextmanager
def patient_reading() -> Iterator[Connection]:
    """Give a connection for one batch of a long pass by an index. Statements have no time-out."""
    if db.engine.dialect.name == "sqlite":
        with reading() as connection:
            yield connection
        return
    with db.engine.connect() as connection, statement_timeout(connection, None):
        keep_to_indexes(connection)
        yield connection


def keep_to_indexes(connection: Connection | Session) -> None:
    """Let this transaction read no whole table, whatever the statistics say.

    PostgreSQL does it where they are of the time when the table was small. Does nothing on SQLite.
    """
    if isinstance(connection, Session):
        connection = connection.connection()
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )


@contextmanager
def snapshot(*, seconds: float | None = LONG_READ_SECONDS) -> Iterator[Connection]:
    """Give a connection for long reading: all its statements see the moment of the first one.

    A statement may take so many seconds; None is for ever.
    """
    if db.engine.dialect.name == "sqlite":
        # Begins a transaction, and a transaction of SQLite is a snapshot.
        with reading() as connection:
            yield connection
        return
    with _repeatable_read().connect() as connection:
        with statement_timeout(connection, seconds):
            yield connection


@contextmanager
def counting() -> Iterator[Connection]:
    """Give a snapshot for counting large tables, which are counted by their indexes alone.

    Left to itself the planner of PostgreSQL reads whole tables for that as soon as they fit into
    memory, and takes the room of what requests need.
    """
    if db.engine.dialect.name == "sqlite":
        with reading() as connection:
            yield connection
        return
    with _repeatable_read().connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        yield connection


def _repeatable_read() -> Engine:
    return db.engine.execution_options(begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


@contextmanager
def transaction() -> Iterator[Session]:
    """Run one use case: commit at the end of the block, roll back when it raises.

    What `after_commit` was given runs after the commit. Does not nest.
    """
    session: Session = db.session()
    if _HOOKS in session.info:
        raise RuntimeError("transaction() does not nest")
    session.rollback()
    hooks: list[Callable[[], None]] = []
    session.info[_HOOKS] = hooks
    try:
        with session.begin():
            yield session
    finally:
        del session.info[_HOOKS]
        session.close()
    for hook in hooks:
        hook()


def require_transaction() -> Session:
    """Return the session of the open transaction. Raises RuntimeError outside of one."""
    session: Session = db.session()
    if _HOOKS not in session.info:
        raise RuntimeError("this belongs into a transaction()")
    return session


def after_commit(hook: Callable[[], None]) -> None:
    """Run `hook` once the open transaction is committed; never when it is rolled back."""
    require_transaction().info[_HOOKS].append(hook)


def violated_constraint(error: IntegrityError) -> str | None:
    """Return the name of the constraint that a statement broke, where the database tells it."""
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        name: str | None = diagnostics.constraint_name
        return name
    # SQLite tells the columns: "UNIQUE constraint failed: users.username".
    message = str(error.orig)
    _, _, columns = message.partition("UNIQUE constraint failed: ")
    if not columns:
        return None
    table = columns.split(".", 1)[0]
    names = "_".join(part.strip().split(".", 1)[1] for part in columns.split(","))
    return f"uq_{table}_{names}"
