"""Every wait for PostgreSQL has a time limit, even if the network drops packets."""

import io
import select
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.deployments import Deployment
from tests.support.polling import least, seconds_of
from tests.support.proxy import FaultProxy
from userapi.infrastructure.database import (
    ServiceConnection,
    connect_alone,
    db,
    reading,
    statement_timeout,
    transaction,
)
from userapi.settings import Settings


class QuickConnection(ServiceConnection):
    """The same with a bound that a test can wait for."""

    reply_seconds = 0.3


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[FaultProxy]:
    parts = urlsplit(postgresql_url)
    with FaultProxy(parts.hostname or "", parts.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(deployment: Deployment, proxy: FaultProxy) -> str:
    parts = urlsplit(deployment.database.url)
    account = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{account}@{proxy.host}:{proxy.port}"))


def connect(url: str) -> QuickConnection:
    connection: QuickConnection = psycopg2.connect(
        url, connection_factory=QuickConnection, connect_timeout=60
    )
    return connection


@pytest.fixture
def connection(through_proxy: str) -> Iterator[QuickConnection]:
    connection = connect(through_proxy)
    yield connection
    connection.close()


def seconds_of_a_broken_statement(
    fault: Callable[[], None], proxy: FaultProxy, through_proxy: str
) -> float:
    """Return how long a statement takes that this fault breaks; it ends the connection."""
    proxy.pass_on()
    connection = connect(through_proxy)
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    fault()

    def fail() -> None:
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")

    seconds = seconds_of(fail)
    assert connection.closed
    return seconds


def test_a_statement_into_a_black_hole_breaks_its_connection(
    proxy: FaultProxy, through_proxy: str
) -> None:
    def measure() -> float:
        return seconds_of_a_broken_statement(proxy.black_hole, proxy, through_proxy)

    assert least(measure, below=1) < 1


def test_a_commit_into_a_black_hole_breaks_its_connection(
    proxy: FaultProxy, connection: QuickConnection
) -> None:
    connection.cursor().execute("BEGIN")
    proxy.black_hole()

    with pytest.raises(psycopg2.OperationalError):
        connection.commit()

    assert connection.closed


def test_an_answer_of_a_byte_a_second_does_not_stretch_the_bound(
    proxy: FaultProxy, through_proxy: str
) -> None:
    def measure() -> float:
        return seconds_of_a_broken_statement(proxy.trickle, proxy, through_proxy)

    assert least(measure, below=1) < 1


def test_a_cursor_of_the_server_has_the_bound_too(
    proxy: FaultProxy, connection: QuickConnection
) -> None:
    connection.autocommit = False
    cursor = connection.cursor("streamed")
    cursor.execute("SELECT generate_series(1, 10000)")
    assert len(cursor.fetchmany(10)) == 10
    proxy.black_hole()

    with pytest.raises(psycopg2.OperationalError):
        cursor.fetchmany(10)


def test_one_black_hole_harms_no_other_connection(
    proxy: FaultProxy, connection: QuickConnection, deployment: Deployment
) -> None:
    """All run at once, so that a wrong socket would be shut if sockets were mixed up."""
    direct = [psycopg2.connect(deployment.database.url) for _ in range(4)]
    stop = threading.Event()
    failures: list[Exception] = []

    def ask(one: psycopg2.extensions.connection) -> None:
        while not stop.is_set():
            try:
                one.cursor().execute("SELECT 1")
            except psycopg2.Error as exc:
                failures.append(exc)
                return

    threads = [threading.Thread(target=ask, args=(one,)) for one in direct]
    for thread in threads:
        thread.start()
    proxy.black_hole()
    with pytest.raises(psycopg2.OperationalError):
        connection.cursor().execute("SELECT 1")
    stop.set()
    for thread in threads:
        thread.join()
    for one in direct:
        one.close()

    assert failures == []


@pytest.mark.thorough
def test_copy_and_notifications_work_on_a_bounded_connection(connection: QuickConnection) -> None:
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE copied (n integer)")

    cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("1\n2\n"))
    cursor.execute("LISTEN heard")
    cursor.execute("NOTIFY heard")
    time.sleep(QuickConnection.reply_seconds * 2)  # Idle is no wait for an answer.
    select.select([connection], [], [], 5)
    connection.poll()

    cursor.execute("SELECT sum(n) FROM copied")
    assert cursor.fetchone() == (3,)
    assert [notice.channel for notice in connection.notifies] == ["heard"]


@pytest.mark.thorough
def test_what_may_take_longer_is_waited_for_and_only_that(app: Flask) -> None:
    slow = text("SELECT pg_sleep(3.6)")
    with app.app_context():
        with transaction() as session:
            with statement_timeout(session, 5):
                session.execute(slow)
            session.execute(text("SELECT 1"))

        with pytest.raises(OperationalError), reading() as connection:
            connection.execute(slow)

        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_connection_outside_the_pool_has_the_bound(app: Flask, deployment: Deployment) -> None:
    settings = Settings.from_env(deployment.environment, instance_dir=deployment.instance_dir)

    connection = connect_alone(settings.database_url, "userapi-tests")

    assert isinstance(connection, ServiceConnection)
    assert connection.autocommit
    connection.close()
