"""What `make bench` measures: the service and the baselines, on one PostgreSQL with many users."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from tests.support import service_clients
from tests.support.gunicorn import REPOSITORY, GunicornService
from tests.support.ports import free_port
from userapi_client import Client, Login, Tokens

API = "/api/v1"
ADMINISTRATOR = "admin"
PASSWORD = "violet-harbour-93-lantern"
UNLIMITED = {
    name: "900000000/minute"
    for name in (
        "RATE_LIMIT_DEFAULT",
        "RATE_LIMIT_LOGIN",
        "RATE_LIMIT_REGISTER",
        "RATE_LIMIT_PASSWORD_RESET",
        "RATE_LIMIT_REFRESH",
        "RATE_LIMIT_EMAIL_CHANGE",
        "RATE_LIMIT_PASSWORD_STRENGTH",
        "RATE_LIMIT_SERVICE",
        "RATE_LIMIT_TOKEN",
    )
}
# What can be tried out: passed on to the service.
GUNICORN = ("WEB_CONCURRENCY", "GUNICORN_THREADS", "PASSWORD_HASH_QUEUE")


def environment_of(database: str) -> dict[str, str]:
    """Return the settings of the service: everything is on, limits have high numbers."""
    return {
        "ENVIRONMENT": "development",
        "DATABASE_URL": database,
        "REDIS_URL": os.environ["TEST_REDIS_URL"],
        "LOG_FILE": str(REPOSITORY / "build" / "benchmark.log"),
        # The administrator logs in for each of many connections.
        "SESSION_MAX_PER_USER": "1000",
        **{name: os.environ[name] for name in GUNICORN if name in os.environ},
        **UNLIMITED,
    }


def new_database(name: str) -> str:
    """Create an empty database on the server of the tests, and return its URL."""
    server = os.environ["TEST_DATABASE_URL"].replace("+psycopg2", "")
    with closing(psycopg2.connect(server)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name}")
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def prepare(service: GunicornService, users: int, *, folder: Path = REPOSITORY) -> None:
    """Migrate the database, and add an administrator and this number of users.

    `folder` has the version of the service that does this.
    """
    admin = ["--username", ADMINISTRATOR, "--email", "admin@example.com", "--password-stdin"]
    for arguments in (
        ["db", "upgrade"],
        ["users", "create-admin", *admin],
        ["seed", "--users", str(users), "--fixed", "--mfa-percent", "0", "--password-stdin"],
    ):
        print("preparing:", " ".join(arguments), flush=True)
        subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=folder,
            input=PASSWORD + "\n",
            text=True,
            env=service.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    with closing(psycopg2.connect(service.environment["DATABASE_URL"])) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")


def client_of(service: GunicornService, username: str = ADMINISTRATOR) -> Client:
    """Return a client of a user without second factors."""
    return Client(service.base_url, Login(username, PASSWORD), timeout=60)


def log_in(service: GunicornService, username: str = ADMINISTRATOR) -> Tokens:
    """Return the tokens of a user without second factors."""
    return service_clients.log_in(service.base_url, username, PASSWORD)


@contextmanager
def baselines(database: str) -> Iterator[tuple[str, int]]:
    """Serve bare Flask and Flask with one SELECT; yield their URL and the id of the process.

    The class of the workers and the number of their threads are those of the service.
    """
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--pythonpath",
            str(REPOSITORY),
            "--no-control-socket",
            "--worker-class",
            "userapi.serving.worker.Worker",
            "--workers",
            "2",
            "--threads",
            "80",
            "--keep-alive",
            "75",
            "--bind",
            f"127.0.0.1:{port}",
            "--log-level",
            "error",
            "benchmarks.floors:create_app()",
        ],
        cwd=REPOSITORY / "benchmarks",  # Where no configuration of the service is found.
        env={**os.environ, "FLOOR_DSN": database, "FLOOR_USERNAME": ADMINISTRATOR},
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(base + "/bare")
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, pause_seconds: float = 0.05) -> None:
    """Wait until a URL is answered. Raises TimeoutError."""
    for _ in range(int(20 / pause_seconds)):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(pause_seconds)
    raise TimeoutError(url)


def usernames(database: str, count: int) -> list[str]:
    """Return the names of active users, whose password is PASSWORD."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT username FROM users WHERE status = 'active' AND username <> %s"
            " ORDER BY created_at LIMIT %s",
            (ADMINISTRATOR, count),
        )
        return [str(name) for (name,) in cursor.fetchall()]


def rare_search(database: str) -> str:
    """Return a text that some ten users have in their names."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT left(username, length) AS start FROM users, generate_series(5, 20) AS length"
            " WHERE length(username) >= length GROUP BY start HAVING count(*) BETWEEN 8 AND 14"
            " ORDER BY abs(count(*) - 11), start LIMIT 1"
        )
        (text,) = cursor.fetchone() or ("",)
        return str(text)


def database_pids() -> list[int]:
    """Return the ids of all processes of PostgreSQL."""
    found = subprocess.run(["pgrep", "-x", "postgres"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]
