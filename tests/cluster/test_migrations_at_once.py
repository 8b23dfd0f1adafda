"""Several concurrent `flask db upgrade`: all succeed, one migrates, no index is left invalid."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from tests.cluster.conftest import ENVIRONMENT
from tests.cluster.guarantees import hold
from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import REPOSITORY, service_environment

pytestmark = pytest.mark.cluster

TOGETHER = 4
# The last revision before indexes were built concurrently on filled tables.
FILLED_AT = "0003"


@pytest.fixture
def url(make_database: Callable[[str], PostgresDatabase]) -> str:
    """Return the URL of an empty database."""
    url = make_database(f"at_once_{uuid4().hex[:8]}").url
    execute(url, "DROP SCHEMA pristine CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


def test_on_an_empty_database(url: str, tmp_path: Path) -> None:
    upgrade_together(url, tmp_path)

    assert invalid_indexes(url) == []


def test_on_a_filled_database(url: str, tmp_path: Path) -> None:
    assert finish(upgrade(url, tmp_path, FILLED_AT)) == 0
    execute(
        url,
        "INSERT INTO users (id, username, email, email_normalized, email_verified,"
        " must_change_password, status, attributes, search_text, version, access_version,"
        " created_at, updated_at)"
        " SELECT gen_random_uuid(), name, name || '@example.com', name || '@example.com', true,"
        " false, 'active', '{}', name, 1, 1, now(), now()"
        " FROM (SELECT 'user' || n AS name FROM generate_series(1, 20000) AS n) AS names",
    )

    upgrade_together(url, tmp_path)

    assert invalid_indexes(url) == []


def upgrade_together(url: str, directory: Path) -> None:
    """Run several upgrades at once and check that each ends with 0.

    A migration that two of them ran would fail in one: its tables and columns would exist.
    """
    running = [upgrade(url, directory / str(number), "head") for number in range(TOGETHER)]
    outputs = [process.communicate(timeout=200)[0] for process in running]

    failed = [o for process, o in zip(running, outputs, strict=True) if process.returncode != 0]
    assert failed == []
    hold("G12", len(failed), bound=0)


def upgrade(url: str, directory: Path, revision: str) -> "subprocess.Popen[str]":
    """Start `flask db upgrade`."""
    directory.mkdir(exist_ok=True)
    variables = {**ENVIRONMENT, "DATABASE_URL": url, "INSTANCE_DIR": str(directory)}
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "db", "upgrade", revision],
        cwd=REPOSITORY,
        env=service_environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> int:
    """Wait for a process and return its exit code."""
    process.communicate(timeout=100)
    return process.returncode


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run a statement and return its rows."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def invalid_indexes(url: str) -> list[str]:
    """Return the names of indexes that PostgreSQL does not use."""
    query = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    return [str(row[0]) for row in execute(url, query)]
