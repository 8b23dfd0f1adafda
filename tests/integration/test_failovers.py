"""After a failover of PostgreSQL, or a change of routing, no connection stays with a server."""

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.metrics import sample
from tests.support.polling import seconds_of
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from userapi.infrastructure.database import (
    autocommit,
    clock_skew,
    connect_alone,
    engine,
    reading,
    transaction,
)

READ_ONLY = "SET default_transaction_read_only = on"
CHANGE = text("UPDATE published_events SET total = total")
# Cancelled at the first try only: a rollback does not reset a sequence.
CANCELLED_ONCE = """
    DO $$ BEGIN
        IF nextval('tries') = 1 THEN RAISE EXCEPTION 'cancelled' USING ERRCODE = '{code}'; END IF;
    END $$
"""
SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
HEALTH_CONNECTIONS = text(
    "SELECT pid FROM pg_stat_activity"
    " WHERE application_name = 'userapi-health' AND datname = current_database()"
)

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """Return an application with one connection in its pool."""
    return make_app(DATABASE_POOL_SIZE="1", HEALTH_DETAILED_PUBLIC="true")


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def make_read_only() -> None:
    """Make the server of the pooled connection read-only, for this connection."""
    with reading() as connection:
        connection.exec_driver_sql(READ_ONLY)


def test_a_connection_to_a_read_only_server_fails_once() -> None:
    """It used to return to the pool, and every change failed for half an hour."""
    make_read_only()

    with pytest.raises(InternalError, match="read-only transaction"), transaction() as session:
        session.execute(CHANGE)

    with transaction() as session:
        session.execute(CHANGE)


def test_a_statement_that_a_read_only_server_rejects_has_a_known_outcome() -> None:
    """It did not happen, although the connection ends."""
    make_read_only()

    with pytest.raises(InternalError, match="read-only transaction"), autocommit() as connection:
        connection.execute(CHANGE)


def test_a_request_on_a_read_only_server_is_answered_503(app: Flask) -> None:
    client = JsonClient(app)
    body = {"username": "nobody", "password": "violet-harbour-93-lantern"}
    make_read_only()

    first, second = [client.post("/api/v1/auth/login", json=body) for _ in range(2)]

    assert (first.status_code, first.get_json()["code"]) == (503, "service_unavailable")
    assert second.status_code == 401


@pytest.mark.parametrize("code", ["25006", "57P01", "57P02", "57P03"])
def test_a_server_that_shuts_down_or_is_read_only_empties_the_pool(
    make_app: Callable[..., Flask], code: str
) -> None:
    """Each of the other connections would fail once more."""
    with make_app(DATABASE_POOL_SIZE="2").app_context():
        before = backends_of_pool()
        with pytest.raises((OperationalError, InternalError)), reading() as connection:
            connection.exec_driver_sql(
                f"DO $$ BEGIN RAISE EXCEPTION 'away' USING ERRCODE = '{code}'; END $$"
            )
        after = backends_of_pool()

    assert (len(before), len(after), before & after) == (2, 2, set())


def backends_of_pool() -> set[int]:
    """Return the processes of the server that the two connections of a pool lead to."""
    backend = text("SELECT pg_backend_pid()")
    with reading() as first, reading() as second:
        return {first.scalar(backend) or 0, second.scalar(backend) or 0}


def test_an_idle_connection_to_a_read_only_server_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_read_only()
    monkeypatch.setattr(engine, "PING_AFTER_IDLE_SECONDS", 0.0)

    with transaction() as session:
        session.execute(CHANGE)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("hosts", "query"),
    [
        ("127.0.0.1:{hangs},127.0.0.1:{serves}", ""),
        ("", "hostaddr=127.0.0.1,127.0.0.1&port={hangs},{serves}&"),
    ],
)
def test_a_host_that_hangs_delays_the_first_connection_only(
    postgresql_url: str, hosts: str, query: str
) -> None:
    """With addresses in place of names, every connection failed."""
    parts = urlsplit(postgresql_url)
    account = parts.netloc.rpartition("@")[0]
    with FaultProxy(parts.hostname or "", parts.port or 5432) as hanging:
        hanging.black_hole()
        ports = {"hangs": hanging.port, "serves": parts.port}
        options = f"{query.format_map(ports)}target_session_attrs=read-write"
        url = f"postgresql://{account}@{hosts.format_map(ports)}{parts.path}?{options}"

        def connect() -> None:
            connect_alone(url, "userapi-tests").close()

        first, second = seconds_of(connect), seconds_of(connect)

    assert first > 1.5
    assert second < 1


@pytest.mark.thorough
def test_a_host_keeps_its_address_when_it_is_tried_first(postgresql_url: str) -> None:
    """The order of names changed and that of addresses did not, so the second connection failed."""
    parts = urlsplit(postgresql_url)
    account = parts.netloc.rpartition("@")[0]
    hosts = f"host=pg1,pg2&hostaddr=127.0.0.2,127.0.0.1&port={free_port()},{parts.port}"
    url = f"postgresql://{account}@{parts.path}?{hosts}"
    reached = []

    for _ in range(2):
        connection = connect_alone(url, "userapi-tests")
        reached.append(connection.info.host)
        connection.close()

    assert reached == ["pg2", "pg2"]


@pytest.fixture
def tries(context: None) -> Iterator[None]:
    """Create the sequence that counts the tries of a statement."""
    with autocommit() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE tries")
    yield
    with autocommit() as connection:
        connection.exec_driver_sql("DROP SEQUENCE tries")


@pytest.mark.usefixtures("tries")
@pytest.mark.parametrize("code", [SERIALIZATION_FAILURE, DEADLOCK_DETECTED])
def test_a_single_statement_that_the_server_cancels_is_repeated_once(code: str) -> None:
    with autocommit() as connection:
        connection.exec_driver_sql(CANCELLED_ONCE.format(code=code))
        assert connection.scalar(text("SELECT last_value FROM tries")) == 2


@pytest.mark.usefixtures("tries")
def test_a_statement_of_a_transaction_is_not_repeated() -> None:
    with pytest.raises(OperationalError), transaction() as session:
        session.connection().exec_driver_sql(CANCELLED_ONCE.format(code=SERIALIZATION_FAILURE))


@pytest.fixture
def cancels_transactions(context: None) -> Iterator[None]:
    """Let the server cancel each transaction that inserts an audit row."""
    with autocommit() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN RAISE EXCEPTION 'cancelled' USING ERRCODE = '{DEADLOCK_DETECTED}'; END $$;"
            " CREATE TRIGGER cancel BEFORE INSERT ON audit_logs"
            " FOR EACH ROW EXECUTE FUNCTION cancel()"
        )
    yield
    with autocommit() as connection:
        connection.exec_driver_sql("DROP TRIGGER cancel ON audit_logs; DROP FUNCTION cancel()")


@pytest.mark.usefixtures("cancels_transactions")
def test_a_request_whose_transaction_is_cancelled_is_answered_503(app: Flask) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": "violet-harbour-93-lantern"}

    answer = JsonClient(app).post("/api/v1/auth/register", json=body)

    assert (answer.status_code, answer.get_json()["code"]) == (503, "service_unavailable")
    assert "Retry-After" in answer.headers
    with reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users WHERE username = 'ada'")) == 0


def test_health_keeps_its_connection_and_replaces_a_broken_one(app: Flask) -> None:
    client = JsonClient(app)
    with reading() as connection:
        of_earlier_tests = set(connection.scalars(HEALTH_CONNECTIONS))

    def check() -> set[int]:
        assert client.get("/api/v1/health/ready").status_code == 200
        with reading() as connection:
            return set(connection.scalars(HEALTH_CONNECTIONS)) - of_earlier_tests

    first, second = check(), check()
    with reading() as connection:
        (pid,) = first
        connection.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
    third = check()

    assert len(first) == len(third) == 1
    assert second == first
    assert third != first


def test_health_reports_a_read_only_server(app: Flask, deployment: Deployment) -> None:
    client = JsonClient(app)
    url = deployment.database.url
    name = urlsplit(url).path.removeprefix("/")

    def alter(change: str) -> None:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(f'ALTER DATABASE "{name}" {change}')
        connection.close()

    alter("SET default_transaction_read_only = on")
    try:
        report = client.get("/api/v1/health/detailed").get_json()
        ready = client.get("/api/v1/health/ready")
    finally:
        alter("RESET default_transaction_read_only")
    later = client.get("/api/v1/health/detailed").get_json()

    assert report["components"]["database"]["status"] == "read_only"
    assert report["status"] == "degraded"
    assert (ready.status_code, ready.get_json()["status"]) == (200, "degraded")
    assert later["components"]["database"]["status"] == "up"


@pytest.mark.parametrize(("skew", "status"), [(-9.0, 200), (-11.0, 503), (11.0, 503)])
def test_a_clock_that_is_far_off_makes_the_process_not_ready(
    app: Flask, monkeypatch: pytest.MonkeyPatch, skew: float, status: int
) -> None:
    """Other processes would reject its tokens."""
    monkeypatch.setattr(f"{clock_skew.__name__}.time.time", lambda: time.time_ns() / 1e9 + skew)
    client = JsonClient(app)

    ready = client.get("/api/v1/health/ready")

    assert ready.status_code == status
    assert ready.get_json()["checks"].get("clock") == (None if status == 200 else "skewed")
    assert abs(sample(client, "clock_skew_seconds") - skew) < 2
