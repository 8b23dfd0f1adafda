"""The shipped configuration of PgBouncer, between the service as it is shipped and PostgreSQL."""

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg2
import pytest
from click.testing import Result

from tests.support.commands import run_command
from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.polling import wait_until
from tests.support.programs import PGBOUNCER, may_be_skipped
from tests.support.servers import Server, postgresql_serves
from userapi.diagnosis.postgresql import SETTINGS_OF_ROLE
from userapi.infrastructure.database import SESSION_SETTINGS
from userapi_client import Client, Login

CONFIGURATION = (REPOSITORY / "deploy" / "pgbouncer" / "pgbouncer.ini").read_text("utf-8")
ROLE = (REPOSITORY / "deploy" / "pgbouncer" / "role.sql").read_text("utf-8")
PASSWORD = "violet-harbour-93-lantern"

pytestmark = pytest.mark.skipif(may_be_skipped(PGBOUNCER), reason="PgBouncer is not installed")


class PgBouncer(Server):
    """PgBouncer as deploy/ has it, before a database of the tests."""

    name = "pgbouncer"

    def __init__(self, directory: Path, database_url: str, configuration: str) -> None:
        super().__init__(directory)
        self._database = urlsplit(database_url)
        self._name = self._database.path.lstrip("/")
        self._configuration = configuration

    @property
    def url(self) -> str:
        """The URL that the service is given in place of PostgreSQL's."""
        return self._database._replace(
            netloc=f"{self._database.username}:{self._database.password}@127.0.0.1:{self.port}"
        ).geturl()

    def launch(self) -> None:
        """Put the tests' addresses in, and start."""
        users = self.directory / "userlist.txt"
        password = unquote(self._database.password or "")
        users.write_text(f'"{self._database.username}" "{password}"\n')
        text = self._configuration
        for shipped, here in (
            (
                "userapi = host=postgresql port=5432 dbname=userapi",
                f"{self._name} = host=127.0.0.1 port={self._database.port} dbname={self._name}",
            ),
            ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1\nunix_socket_dir ="),
            ("listen_port = 6432", f"listen_port = {self.port}"),
            ("/etc/pgbouncer/userlist.txt", str(users)),
            # Few enough that the service has to wait for its turn.
            ("default_pool_size = 50", "default_pool_size = 5"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        if os.geteuid() == 0:  # It refuses to run as root.
            text += "user = nobody\n"
            self.directory.chmod(0o755)
        (self.directory / "pgbouncer.ini").write_text(text)
        self._process = self._spawn([PGBOUNCER.require(), self.directory / "pgbouncer.ini"])

    def _serves(self) -> bool:
        return postgresql_serves(self.url)


@dataclass(frozen=True, slots=True)
class Pooled:
    """The service on PgBouncer, and the worker's way to PostgreSQL."""

    service: GunicornService
    direct_url: str
    pgbouncer_url: str


def run_as_superuser(database: PostgresDatabase, statements: str) -> None:
    with closing(psycopg2.connect(database.url)) as connection:
        connection.autocommit = True
        connection.cursor().execute(statements)


def environment(url: str) -> dict[str, str]:
    return {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "DATABASE_URL": url,
        "DRAIN_SECONDS": "0",
    }


@pytest.fixture(scope="module")
def pooled(
    make_database: Callable[[str], PostgresDatabase], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pooled]:
    database = make_database("behind_pgbouncer")
    name = urlsplit(database.url).path.lstrip("/")
    # The server starts with an unusual time zone.
    run_as_superuser(database, f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    run_as_superuser(
        database,
        ROLE.replace("ROLE userapi IN DATABASE userapi", f"ROLE postgres IN DATABASE {name}"),
    )
    folder = tmp_path_factory.mktemp("pgbouncer")
    with PgBouncer(folder, database.url, CONFIGURATION) as pgbouncer:
        with GunicornService(environment(pgbouncer.url)) as service:
            yield Pooled(service, database.url, pgbouncer.url)


def diagnose(pgbouncer: PgBouncer, folder: Path) -> Result:
    variables = {**environment(pgbouncer.url), "INSTANCE_DIR": str(folder / "instance")}
    return run_command(variables, "doctor")


def client_of(pooled: Pooled, username: str) -> Client:
    """Return a client of a new administrator."""
    add_administrator(pooled.service, PASSWORD, username=username)
    return Client(pooled.service.base_url, Login(username, PASSWORD), timeout=60)


def test_the_role_gets_what_the_service_asks_for() -> None:
    given = dict(re.findall(r"SET (\w+) = '(.+)';", ROLE))

    assert list(given) == list(SETTINGS_OF_ROLE)
    in_seconds = {name: SESSION_SETTINGS[name].replace("000ms", "s") for name in SETTINGS_OF_ROLE}
    assert given == in_seconds


@pytest.mark.thorough
def test_many_at_once_share_few_connections(pooled: Pooled) -> None:
    robin = client_of(pooled, "robin")

    def live(number: int) -> int:
        name = f"sam-{number}"
        user = robin.users.create(username=name, email=f"{name}@example.com", password=PASSWORD)
        with Client(pooled.service.base_url, Login(name, PASSWORD), timeout=60) as own:
            own.auth.refresh()
            me = own.auth.me()
        listed = robin.users.page(search=name, page_size=1)
        robin.users.suspend(user.id, reason="a trial")
        return int(me.id == user.id and len(listed.items) >= 1)

    with ThreadPoolExecutor(16) as crowd:
        done = sum(crowd.map(live, range(48)))

    assert done == 48
    assert "request.crashed" not in pooled.service.log
    with closing(psycopg2.connect(pooled.pgbouncer_url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        # Another client would find them on the connection, or not find its own.
        assert cursor.fetchone() == (0,)
    assert len(robin.users.page(page_size=100).items) >= 49
    robin.close()


def test_times_are_in_utc_and_statements_have_an_end(pooled: Pooled) -> None:
    with client_of(pooled, "wren") as client:
        assert client.auth.me().raw["created_at"].endswith("Z")
    doctor = pooled.service.command("doctor").stdout
    assert "connected through a pooler" in doctor
    assert "the pooler drops session settings" not in doctor


def test_an_export_is_streamed_through_it(pooled: Pooled) -> None:
    with client_of(pooled, "finch") as client:
        rows = [json.loads(line) for line in client.request("GET", "/users/export").iter_lines()]

    assert "finch" in {row["username"] for row in rows}


@pytest.mark.thorough
@pytest.mark.parametrize("command", [("worker",), ("db", "upgrade")])
def test_the_worker_and_migrations_reject_a_pooler(pooled: Pooled, command: tuple[str]) -> None:
    """They would lose their locks, and two workers would publish the same events."""
    rejected = pooled.service.flask(*command)

    assert rejected.returncode == 1
    assert (
        "DATABASE_DIRECT_URL: must be PostgreSQL's own address" in rejected.stdout + rejected.stderr
    )


def test_an_embedded_worker_rejects_a_pooler(pooled: Pooled) -> None:
    inside = {**pooled.service.environment, "WORKER_EMBEDDED": "true"}
    given = {name: value for name, value in inside.items() if name != "BIND"}
    service = GunicornService(given)
    try:
        code = service.launch().wait(60)
        log = service.log
        doctor = service.command("doctor")
    finally:
        service.__exit__()

    assert code == 1
    assert "DATABASE_DIRECT_URL: must be PostgreSQL's own address" in log
    assert doctor.exit_code == 1
    assert "Set DATABASE_DIRECT_URL to PostgreSQL's own address" in doctor.stdout


@pytest.mark.thorough
def test_worker_and_migrations_use_the_direct_url(pooled: Pooled) -> None:
    inside = {
        **pooled.service.environment,
        "WORKER_EMBEDDED": "true",
        "DATABASE_DIRECT_URL": pooled.direct_url,
    }
    given = {name: value for name, value in inside.items() if name != "BIND"}
    with GunicornService(given) as service:
        wait_until(lambda: "worker.started" in service.log)
        upgraded = service.flask("db", "upgrade")
        doctor = service.command("doctor").stdout

    assert upgraded.returncode == 0, upgraded.stderr
    assert "worker.behind_pooler" not in service.log
    assert "connected through a pooler" in doctor
    assert "DATABASE_DIRECT_URL" not in doctor


def test_the_doctor_finds_a_role_without_time_outs(
    pooled: Pooled, make_database: Callable[[str], PostgresDatabase], tmp_path: Path
) -> None:
    database = make_database("behind_pgbouncer_alone")
    with PgBouncer(tmp_path, database.url, CONFIGURATION) as pgbouncer:
        doctor = diagnose(pgbouncer, tmp_path).stdout

    kept = "the pooler drops session settings of the service: statement_timeout, lock_"
    assert kept in doctor
    assert "Run deploy/pgbouncer/role.sql" in doctor


def test_the_doctor_finds_a_pgbouncer_that_refuses(pooled: Pooled, tmp_path: Path) -> None:
    refusing = CONFIGURATION.replace("ignore_startup_parameters = options", "")
    with PgBouncer(tmp_path, pooled.direct_url, refusing) as pgbouncer:
        doctor = diagnose(pgbouncer, tmp_path)

    assert doctor.exit_code == 1
    assert "a PgBouncer that rejects the startup options of the service" in doctor.stdout
    assert "Set `ignore_startup_parameters = options` there" in doctor.stdout
