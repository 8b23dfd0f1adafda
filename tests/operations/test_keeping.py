"""Maintenance: pruning the audit log, and transferring the tables to another role."""

from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from tests.operations.stage import Stage
from tests.support.deployments import ENVIRONMENT, migrate_with
from tests.support.servers import PostgresServer, Server

OLD_ROWS = """
    INSERT INTO audit_logs (id, occurred_at, action, outcome, actor_type)
    SELECT gen_random_uuid(), now() - interval '800 days' + n * interval '1 day',
        'user.updated', 'success', 'system'
    FROM generate_series(1, 100) n
    """


@pytest.mark.slow
def test_pruning_leaves_a_log_that_verifies(stage: Stage) -> None:
    with psycopg2.connect(stage.environment["DATABASE_URL"]) as connection:
        connection.cursor().execute(OLD_ROWS)
    connection.close()

    output = stage.run("Pruning")

    assert "Deleted 70 rows" in output or "Deleted 69 rows" in output
    assert output.count("The audit log verifies.") == 2


@pytest.mark.slow  # tests/deploy/test_database_roles.py runs the same file.
def test_the_tables_are_taken_from_the_service(
    private_server: Callable[[type[Server]], Server], redis_url: str, tmp_path: Path
) -> None:
    """Roles belong to a whole server, so it has one of its own."""
    server = private_server(PostgresServer)
    assert isinstance(server, PostgresServer)
    connection = psycopg2.connect(server.url)
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE userapi ENCODING 'UTF8' TEMPLATE template0")
    connection.close()
    url = f"{server.url.rpartition('/')[0]}/userapi"
    migrate_with(tmp_path / "instance")(url)
    stage = Stage(tmp_path, {**ENVIRONMENT, "DATABASE_URL": url, "REDIS_URL": redis_url})

    output = stage.run("A database role that owns nothing")
    stage.service.__exit__()  # Never started.

    password = output.strip().rpartition(": ")[2]
    service = psycopg2.connect(url, user="userapi", password=password)
    with service, service.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchall() == [("userapi_owner",)]
        cursor.execute("SELECT count(*) FROM users")
        assert cursor.fetchone() == (0,)
    service.close()
