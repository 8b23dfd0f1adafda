"""Databases of every encoding: connections speak UTF-8, and only UTF-8 can be stored."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.gunicorn import REPOSITORY, service_environment
from tests.support.users import PASSWORD

LOGIN = "/api/v1/auth/login"
MakeApp = Callable[..., Flask]
COMMANDS = [
    ("users", "list"),
    ("audit", "list"),
    ("keys", "list"),
    ("roles", "list"),
    ("seed", "--users", "1"),
    ("worker",),
]


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_url(encoding: str, postgresql_url: str, worker_id: str) -> Iterator[str]:
    """Return the URL of an empty database in an encoding that cannot hold every name."""
    name = f"encoding_{encoding.lower()}_{worker_id}"
    with closing(psycopg2.connect(postgresql_url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield urlunsplit(urlsplit(postgresql_url)._replace(path=f"/{name}"))
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["environment", "database"])
def app_with_other_default(
    request: pytest.FixtureRequest, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """Return an application that gets LATIN1 unless it asks for an encoding."""
    if request.param == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        yield make_app()
        return
    app = make_app()
    url = app.extensions["userapi"].settings.database_url.replace("+psycopg2", "")
    name = urlsplit(url).path.lstrip("/")
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f'ALTER DATABASE "{name}" SET client_encoding = LATIN1')
        yield app
        connection.cursor().execute(f'ALTER DATABASE "{name}" RESET client_encoding')


def test_names_of_all_scripts_pass_whatever_the_default_encoding_is(
    app_with_other_default: Flask,
) -> None:
    """A log-in with such a name was a 500, for anybody who typed one."""
    client = JsonClient(app_with_other_default)
    names = {"first_name": "Łukasz", "last_name": "李 🚀"}

    unknown = client.post(LOGIN, json={"username": "łukasz@example.com", "password": PASSWORD})
    made = client.post(
        "/api/v1/auth/register",
        json={"username": "ada", "email": "ada@example.com", "password": PASSWORD, **names},
    )
    ready = client.get("/api/v1/health/ready")

    assert unknown.status_code == 401
    assert (made.status_code, names.items() <= made.get_json().items()) == (201, True)
    assert ready.status_code == 200


@pytest.mark.thorough
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_on_a_database_without_unicode_ends_with_a_line(
    make_app: MakeApp, database_url: str, encoding: str, command: tuple[str, ...]
) -> None:
    result = make_app(DATABASE_URL=database_url).test_cli_runner().invoke(args=[*command])

    assert result.exit_code == 1
    assert result.output == (
        "Error: DATABASE_URL: must be a database with the encoding UTF8; this one has"
        f" {encoding}, which cannot hold every name\n"
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "program", [("gunicorn", "-c", "gunicorn.conf.py"), ("flask", "db", "upgrade")], ids=" ".join
)
def test_the_service_does_not_start_on_a_database_without_unicode(
    database_url: str, encoding: str, program: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database_url,
        "INSTANCE_DIR": str(tmp_path),
        "WEB_CONCURRENCY": "1",
    }

    run = subprocess.run(
        [sys.executable, "-m", *program],
        cwd=REPOSITORY,
        env=service_environment(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    written = run.stdout + run.stderr
    (told,) = [line for line in written.splitlines() if "DATABASE_URL" in line]
    assert (
        f"DATABASE_URL: must be a database with the encoding UTF8; this one has {encoding}" in told
    )
    assert (run.returncode, "Traceback" in written) == (1, False)


def test_doctor_and_readiness_tell_of_a_database_without_unicode(
    make_app: MakeApp, database_url: str, encoding: str
) -> None:
    """Both were green, until the first name that did not fit."""
    app = make_app(DATABASE_URL=database_url)

    doctor = app.test_cli_runner().invoke(args=["doctor"])
    ready = JsonClient(app).get("/api/v1/health/ready")
    metrics = JsonClient(app).get("/metrics").text
    request = JsonClient(app).post(LOGIN, json={"username": "łukasz", "password": PASSWORD})

    assert doctor.exit_code == 1
    assert f"has a database with the encoding {encoding}" in doctor.output
    assert "ENCODING 'UTF8'" in doctor.output
    assert ready.status_code == 503
    checks = ready.get_json()["checks"]
    assert (checks["database"], checks["database_encoding"]) == ("down", "unsupported")
    assert 'dependency_up{dependency="database"} 0.0' in metrics
    assert "database_encoding" not in metrics
    assert (request.status_code, request.get_json()["code"]) == (503, "service_unavailable")


def test_a_database_that_is_away_stops_no_command_that_needs_none(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(
        DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/nothing",
        JWT_ALGORITHM="ES256",
        JWT_KEYS_DIR=str(tmp_path),
    )

    result = app.test_cli_runner().invoke(args=["keys", "list"])

    assert result.exit_code == 0, result.output
