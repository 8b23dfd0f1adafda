"""Fixtures of all tests: servers, databases, applications, users.

The servers start once in a run: in the controller of pytest-xdist before its workers, otherwise
when the first test asks for one. Databases come from one migrated template (`support.databases`).
"""

import gc
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.databases import (
    RUN_DIRECTORY,
    PostgresDatabase,
    SqliteDatabase,
    drop_template,
)
from tests.support.deployments import (
    Backend,
    Deployment,
    build_app,
    deploy,
    disconnect,
    migrate_with,
    patient_redis,
)
from tests.support.guardian import end_with_parent, guardian
from tests.support.mailbox import Mailbox
from tests.support.programs import ProgramMissing, is_ci
from tests.support.servers import (
    DATABASE_URL,
    RABBITMQ_URL,
    REDIS_URL,
    Server,
    ServerFailed,
    Servers,
    new_run_directory,
    wait_until_serving,
)
from tests.support.stages import run_on_both_databases
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.models import UserStatus
from userapi.accounts.new_users import NewUser
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.wiring.services import Services

# The duration of an example depends on the load of the machine, not on the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

_servers = Servers()


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the run: its directory and, where workers share them, the servers."""
    if _is_worker(config):
        end_with_parent()
        return
    # Each part of a run that starts servers is a run of its own, as is a nested pytest.
    os.environ[RUN_DIRECTORY] = str(new_run_directory())
    if config.getoption("dist", "no") == "no" or config.option.collectonly:
        return
    for variable in Servers.kinds:
        try:
            # Tests wait for the servers that they need: RabbitMQ starts within seconds.
            os.environ.update(_servers.launch(variable))
        except ProgramMissing as exc:
            if is_ci():
                pytest.exit(str(exc), returncode=1)
        except ServerFailed as exc:
            pytest.exit(str(exc), returncode=1)


def pytest_collection_finish() -> None:
    """Take modules and tests out of the garbage collector's search: they live until the end."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started and leave nothing behind, also on servers that were given."""
    private = dict(_servers.running)
    run_directory = Path(os.environ.get(RUN_DIRECTORY, ""))
    if not _is_worker(config):
        if DATABASE_URL not in private and (run_directory / "postgresql.done").exists():
            drop_template(os.environ[DATABASE_URL], run_directory)
        for variable in private:
            os.environ.pop(variable, None)
        shutil.rmtree(run_directory, ignore_errors=True)
        guardian.keep(run_directory)
        os.environ.pop(RUN_DIRECTORY, None)
    _servers.stop()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker more than there are processors: tests wait for other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `both_databases` on PostgreSQL and on SQLite."""
    if metafunc.definition.get_closest_marker("both_databases") is not None:
        run_on_both_databases(metafunc)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@cache
def _url_behind(variable: str) -> str:
    """Return the URL of a server that accepts clients; start it if it does not run."""
    try:
        os.environ.update(_servers.launch(variable))
    except ProgramMissing as exc:
        if is_ci():
            raise
        pytest.skip(str(exc))
    url = os.environ[variable]
    wait_until_serving(variable, url)
    return url


@pytest.fixture(scope="session")
def run_directory() -> Path:
    """Return the directory that all workers of this run share."""
    return Path(os.environ[RUN_DIRECTORY])


@pytest.fixture(scope="session")
def worker_number(worker_id: str) -> int:
    """Return a number from 1 that no other worker of this run has."""
    return 1 if worker_id == "master" else int(worker_id.removeprefix("gw")) + 1


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    """Return the URL of the maintenance database, for a superuser."""
    return _url_behind(DATABASE_URL)


@pytest.fixture(scope="session")
def redis_url(worker_number: int) -> str:
    """Return the URL of this worker's own Redis database, which is emptied after each test."""
    parts = urlsplit(_url_behind(REDIS_URL))
    return urlunsplit(parts._replace(path=f"/{worker_number}"))


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """Return the URL of RabbitMQ. Workers share it: use the exchange of `rabbitmq_exchange`."""
    return _url_behind(RABBITMQ_URL)


@pytest.fixture(scope="session")
def rabbitmq_exchange(worker_id: str) -> str:
    """Return the name of an exchange that no other worker uses."""
    return f"user_events_{worker_id}"


@pytest.fixture(scope="session")
def make_database(
    run_directory: Path, worker_id: str, request: pytest.FixtureRequest
) -> Callable[[str], PostgresDatabase]:
    """Return a function that creates another migrated PostgreSQL database, by a short name.

    The name may occur again: pytest-xdist can interrupt a module, whose fixtures are set up twice.
    """
    numbers = itertools.count()

    def make(name: str) -> PostgresDatabase:
        database = PostgresDatabase(
            _url_behind(DATABASE_URL),
            f"{run_directory.name.replace('-', '_')}_{worker_id}_{next(numbers)}_{name}",
            run_directory=run_directory,
            migrate=migrate_with(run_directory / "instance"),
        )
        request.addfinalizer(database.drop)
        return database

    return make


@dataclass(slots=True)
class _Deployments:
    """The applications of this worker, each created at its first use."""

    make: Callable[[Backend], Deployment]
    made: dict[Backend, Deployment] = field(default_factory=dict)

    def on(self, backend: Backend) -> Deployment:
        if backend not in self.made:
            self.made[backend] = self.make(backend)
        return self.made[backend]


@pytest.fixture(scope="session")
def _deployments(
    run_directory: Path, worker_id: str, request: pytest.FixtureRequest
) -> Iterator[_Deployments]:
    instance_dir = run_directory / worker_id
    instance_dir.mkdir()

    def make(backend: Backend) -> Deployment:
        if backend is Backend.SQLITE:
            database = SqliteDatabase(
                instance_dir / "service.sqlite3",
                run_directory=run_directory,
                migrate=migrate_with(run_directory / "instance"),
            )
            return deploy(
                database, instance_dir=instance_dir, environment={}, empty_cache=lambda: None
            )
        redis_url = request.getfixturevalue("redis_url")
        redis_client = redis.Redis.from_url(redis_url)
        redis_client.flushdb()
        return deploy(
            request.getfixturevalue("make_database")("service"),
            instance_dir=instance_dir,
            environment={"REDIS_URL": redis_url},
            empty_cache=redis_client.flushdb,
        )

    deployments = _Deployments(make)
    yield deployments
    for deployment in deployments.made.values():
        disconnect(deployment.app)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return the database of the application: PostgreSQL, unless the test is parametrized."""
    return Backend(getattr(request, "param", Backend.POSTGRESQL))


@pytest.fixture
def deployment(_deployments: _Deployments, backend: Backend) -> Iterator[Deployment]:
    """Return an application with an empty database, which is restored after the test."""
    deployment = _deployments.on(backend)
    yield deployment
    deployment.restore()


@pytest.fixture
def app(deployment: Deployment) -> Flask:
    """Return the application under test."""
    return deployment.app


@pytest.fixture
def clock(deployment: Deployment) -> ManualClock:
    """Return the clock of the application, which is reset after the test."""
    return deployment.clock


@pytest.fixture
def services(app: Flask) -> Services:
    """Return the services of the application, for use in `app.app_context()`."""
    services: Services = app.extensions["userapi"]
    return services


@pytest.fixture
def make_app(deployment: Deployment) -> Iterator[Callable[..., Flask]]:
    """Return a function that creates another application on the same database, with other settings.

    `make_app(LOCKOUT_THRESHOLD="3")`; it shares the clock of `app`.
    """
    made: list[Flask] = []

    def make(**environment: str) -> Flask:
        # A test with a Redis of its own may be about how long the service waits for it.
        with nullcontext() if "REDIS_URL" in environment else patient_redis():
            app = build_app(
                {**deployment.environment, **environment},
                clock=deployment.clock,
                instance_dir=deployment.instance_dir,
            )
        made.append(app)
        return app

    yield make
    for app in made:
        disconnect(app)


@pytest.fixture
def client(app: Flask) -> JsonClient:
    """Return a client without a token."""
    return JsonClient(app)


@pytest.fixture
def make_user(app: Flask, services: Services) -> MakeUser:
    """Return a function that creates a user like the command line: with any roles and status."""

    def make(
        username: str = "robin",
        *,
        roles: Sequence[str] = (),
        status: UserStatus = UserStatus.ACTIVE,
        password: str = PASSWORD,
        **more: object,
    ) -> MadeUser:
        email = str(more.pop("email", f"{username}@example.com"))
        must_change_password = bool(more.pop("must_change_password", False))
        new = NewUser(
            username=username,
            email=email,
            password=password,
            roles=roles,
            status=status,
            must_change_password=must_change_password,
            profile=more,
        )
        with app.app_context():
            view = services.account_creation.create(new, actor=system_actor("tests"))
        return MadeUser(id=str(view.id), username=username, email=email, password=password)

    return make


@pytest.fixture
def log_in(app: Flask) -> LogIn:
    """Return a function that logs a user in and returns their client."""

    def log_in(user: MadeUser, **body: object) -> SignedInClient:
        response = JsonClient(app).post(
            "/api/v1/auth/login",
            json={"username": user.username, "password": user.password, **body},
        )
        assert response.status_code == 200, response.text
        answer = response.get_json()
        return SignedInClient(app, answer)

    return log_in


@pytest.fixture
def private_server(run_directory: Path) -> Iterator[Callable[[type[Server]], Server]]:
    """Return a function that starts a server for this test, which may stop, kill or pause it."""
    started: list[Server] = []
    directories: list[Path] = []

    def start(kind: type[Server]) -> Server:
        directory = run_directory / f"private-{os.getpid()}-{kind.name}-{len(started)}"
        directory.mkdir()
        directories.append(directory)
        server = kind(directory)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def mailbox(app: Flask) -> Mailbox:
    """Return the mailbox that receives the application's mails."""
    return Mailbox(app)
