"""Private PostgreSQL, Redis and RabbitMQ for a test run, on free loopback ports.

    python -m tests.support.servers install [--browser] [--load] [--clusters]
    python -m tests.support.servers run -- COMMAND…

pytest starts them by itself (see `tests/conftest.py`); `run` is for everything else. A server whose
URL is in the environment is not started. All of them end with the run: see `guardian`.
"""

import argparse
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import ClassVar, Self, TypeVar
from urllib.parse import unquote, urlsplit

import amqp
import psycopg2
import redis

from tests.support import npm, programs
from tests.support.folders import parent_of_temporary_folders
from tests.support.guardian import family, freeze, guardian, is_alive, send
from tests.support.ports import free_port
from tests.support.preloaded import AnyProcess

DATABASE_URL = "TEST_DATABASE_URL"
REDIS_URL = "TEST_REDIS_URL"
RABBITMQ_URL = "TEST_RABBITMQ_URL"
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05
REDIS_DATABASES = 128


class ServerFailed(Exception):
    """A server did not start; the message ends with the last lines of its log."""


class Server(ABC):
    """One private server. It keeps port and data when it is stopped and started again."""

    name: ClassVar[str]
    # Ends the server at once; its data are discarded.
    fatal_signal: ClassVar[signal.Signals] = signal.SIGKILL
    # Ends it in order.
    polite_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect to."""

    @abstractmethod
    def launch(self) -> None:
        """Start the processes without waiting until they serve."""

    @abstractmethod
    def _serves(self) -> bool:
        """Return whether the server accepts clients now."""

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError when it is stopped."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait until clients are served. Raises ServerFailed."""
        self.launch()
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until clients are served. Raises ServerFailed."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._serves():
            if not self.is_running or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not start:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the server in order; `start()` restarts it with its data."""
        self._end(self.polite_signal)

    def kill(self) -> None:
        """End the server like a crash; `start()` restarts it with its durable data."""
        self._end(self.fatal_signal)

    def crash(self) -> None:
        """Kill all processes of the server with SIGKILL, like a power cut."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Pause the server: connections stay open and get no answer."""
        send(family(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused server."""
        send(reversed(family(self.pid)), signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the end of the server's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-40:])

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _spawn(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program that Ctrl-C does not reach and that ends with the run."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=dict(environment) if environment is not None else None,
                start_new_session=True,
                user=self._account[0] if self._account else None,
                group=self._account[1] if self._account else None,
                extra_groups=[] if self._account else None,
            )
        guardian.watch(process.pid, ended_by=self.fatal_signal)
        return process

    @property
    def _account(self) -> tuple[int, int] | None:
        """User and group to run as; None is the present one."""
        return None

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        end_process(self._process, signal_number)
        self._process = None


AnyServer = TypeVar("AnyServer", bound=Server)


def end_process(process: AnyProcess, signal_number: signal.Signals) -> None:
    """End a process by a signal, after a time-out by SIGKILL, and then its descendants."""
    if signal_number == signal.SIGKILL:
        members = freeze(process.pid)
        send(members, signal.SIGKILL)
    else:
        members = family(process.pid)
        process.send_signal(signal_number)
        send(reversed(members), signal.SIGCONT)
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    send(members[1:], signal.SIGKILL)
    # The port and the data are free for a new start only when all have ended.
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while any(is_alive(pid) for pid in members) and time.monotonic() < deadline:
        time.sleep(0.005)
    guardian.release(process.pid)


class PostgresServer(Server):
    """PostgreSQL without durability. The account in its URL is a superuser."""

    name = "postgresql"
    polite_signal = signal.SIGINT  # "fast": does not wait for clients.
    fatal_signal = signal.SIGQUIT  # "immediate": SIGKILL would leave shared memory behind.

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._data = directory / "data"
        self._password = secrets.token_urlsafe(16)
        self._programs = programs.POSTGRES.require().parent

    @property
    def url(self) -> str:
        """The URL of the maintenance database."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def launch(self) -> None:
        """Make the data directory at the first start, then start the server."""
        if not self._data.exists():
            self._initialise()
        arguments = [f"--{name}={value}" for name, value in self.options.items()]
        self._process = self._spawn([self._programs / "postgres", "-D", self._data, *arguments])

    @property
    def options(self) -> dict[str, str | int]:
        """The parameters of the server's command line."""
        return {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "max_wal_size": "2GB",
            "jit": "off",
            "timezone": "UTC",
        }

    def _initialise(self) -> None:
        if self._account:
            os.chown(self.directory, *self._account)
        password_file = self.directory / "password"
        password_file.write_text(self._password, "utf-8")
        if self._account:
            os.chown(password_file, *self._account)
        initdb = self._spawn(
            [
                self._programs / "initdb",
                f"--pgdata={self._data}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]
        )
        failed = initdb.wait(START_TIMEOUT_SECONDS) != 0
        guardian.release(initdb.pid)
        password_file.unlink()
        if failed:
            raise ServerFailed(f"initdb failed:\n{self.log_tail()}")

    def _serves(self) -> bool:
        return postgresql_serves(self.url)

    @property
    def _account(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        # PostgreSQL refuses to run as root.
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return entry.pw_uid, entry.pw_gid
        raise ServerFailed("PostgreSQL does not run as root, and there is no user postgres")


class RedisServer(Server):
    """Redis without persistence: it restarts empty."""

    name = "redis"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._password = secrets.token_urlsafe(16)
        self._program = programs.REDIS.require()

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def launch(self) -> None:
        """Start the server."""
        arguments = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        self._process = self._spawn([self._program, *arguments])

    @property
    def options(self) -> dict[str, str]:
        """The parameters of the server's command line."""
        return {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "databases": str(REDIS_DATABASES),
            "requirepass": self._password,
            "dir": str(self.directory),
        }

    def _serves(self) -> bool:
        return redis_serves(self.url)


class RabbitmqServer(Server):
    """RabbitMQ with an epmd of its own. The account in its URL is an administrator."""

    name = "rabbitmq"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._password = secrets.token_urlsafe(16)
        self._program = programs.RABBITMQ.require()
        self._epmd_program = programs.EPMD.require()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._epmd_port = free_port()
        self._distribution_port = free_port()

    @property
    def url(self) -> str:
        """The URL of the default virtual host."""
        return f"amqp://tests:{self._password}@127.0.0.1:{self.port}/%2F"

    @property
    def environment(self) -> dict[str, str]:
        """What `rabbitmqctl` needs to reach this server."""
        home = self.directory / "home"
        return os.environ | {
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_FLAGS": "-start_epmd false",
            "RABBITMQ_NODENAME": f"userapi-tests-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"
            ),
        }

    def control(self, *arguments: str) -> None:
        """Run a command of `rabbitmqctl` on this broker."""
        subprocess.run(
            [self._program.with_name("rabbitmqctl"), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=True,
        )

    def launch(self) -> None:
        """Start epmd and the broker."""
        home = self.directory / "home"
        if not home.exists():
            self._write_configuration(home)
        # In the foreground: Erlang would start it as a daemon, which would not end with the run.
        self._epmd = self._spawn(
            [self._epmd_program, "-address", "127.0.0.1", "-port", str(self._epmd_port)],
            environment=self.environment,
        )
        self._process = self._spawn([self._program], environment=self.environment)

    def _write_configuration(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        (home / "rabbitmq-env.conf").write_text("", "utf-8")
        (home / "advanced.config").write_text("[].\n", "utf-8")
        (home / "enabled_plugins").write_text("[].\n", "utf-8")
        (home / "rabbitmq.conf").write_text(
            f"default_user = tests\ndefault_pass = {self._password}\nloopback_users = none\n",
            "utf-8",
        )

    def _serves(self) -> bool:
        return rabbitmq_serves(self.url)

    def _end(self, signal_number: signal.Signals) -> None:
        super()._end(signal_number)
        if self._epmd is not None:
            end_process(self._epmd, signal.SIGKILL)
            self._epmd = None


def postgresql_serves(url: str) -> bool:
    """Return whether this PostgreSQL accepts queries now."""
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def redis_serves(url: str) -> bool:
    """Return whether this Redis answers now."""
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def rabbitmq_serves(url: str) -> bool:
    """Return whether this RabbitMQ accepts connections now."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=2,
        read_timeout=5,
        write_timeout=5,
    )
    try:
        connection.connect()
        connection.close()
    except (OSError, amqp.AMQPError):
        return False
    return True


SERVES: Mapping[str, Callable[[str], bool]] = {
    DATABASE_URL: postgresql_serves,
    RABBITMQ_URL: rabbitmq_serves,
    REDIS_URL: redis_serves,
}


def wait_until_serving(variable: str, url: str) -> None:
    """Wait for a server that another process has started. Raises ServerFailed."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not SERVES[variable](url):
        if time.monotonic() > deadline:
            raise ServerFailed(f"the server behind {variable} does not answer")
        time.sleep(POLL_SECONDS)


class Servers:
    """The servers of one run in one directory, except those that the environment names."""

    kinds: ClassVar[Mapping[str, type[Server]]] = {
        # The slowest first: it starts while the others are prepared.
        RABBITMQ_URL: RabbitmqServer,
        REDIS_URL: RedisServer,
        DATABASE_URL: PostgresServer,
    }

    def __init__(self) -> None:
        self.running: dict[str, Server] = {}
        self._directory: Path | None = None

    def launch(self, *variables: str) -> dict[str, str]:
        """Start the servers behind these variables, or all; return the variables to set.

        They may not serve yet: see `wait`. Raises ProgramMissing and ServerFailed.
        """
        for variable in variables or tuple(self.kinds):
            if variable in self.running or os.environ.get(variable):
                continue
            server = self.kinds[variable](self._new_directory(self.kinds[variable].name))
            server.launch()
            self.running[variable] = server
        return {variable: server.url for variable, server in self.running.items()}

    def wait(self) -> None:
        """Wait until all serve. Raises ServerFailed."""
        for server in self.running.values():
            server.wait()

    def stop(self) -> None:
        """End all servers and remove their data."""
        for server in self.running.values():
            server.kill()
        self.running.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            guardian.keep(self._directory)
            self._directory = None

    def _new_directory(self, name: str) -> Path:
        if self._directory is None:
            self._directory = new_run_directory()
        directory = self._directory / name
        directory.mkdir()
        return directory


def new_run_directory() -> Path:
    """Return a new directory that is removed with the run; other users may enter its folders."""
    directory = Path(tempfile.mkdtemp(prefix="userapi-tests-", dir=parent_of_temporary_folders()))
    directory.chmod(0o711)
    guardian.remove(directory)
    return directory


@contextmanager
def started(kind: type[AnyServer]) -> Iterator[AnyServer]:
    """Start a server that several tests share, in a directory that is removed with it."""
    directory = new_run_directory()
    with kind(directory) as server:
        yield server
    shutil.rmtree(directory, ignore_errors=True)
    guardian.keep(directory)


def run(command: Sequence[str]) -> int:
    """Run a command with all servers up; return its exit code."""
    servers = Servers()
    child: subprocess.Popen[bytes] | None = None

    def forward(signal_number: int, _frame: FrameType | None) -> None:
        if child is None:
            raise SystemExit(128 + signal_number)
        # The terminal sends Ctrl-C to both processes.
        if signal_number != signal.SIGINT:
            child.send_signal(signal_number)

    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, forward)
    try:
        environment = os.environ | servers.launch()
        servers.wait()
        child = subprocess.Popen(list(command), env=environment)
        guardian.watch(child.pid, ended_by=signal.SIGTERM)
        exit_code = child.wait()
        guardian.release(child.pid)
    finally:
        servers.stop()
    return exit_code if exit_code >= 0 else 128 - exit_code


def _install_packages() -> bool:
    """Install the generator of TypeScript clients; return whether it is installed."""
    try:
        npm.installed_packages()
    except (npm.NpmFailed, programs.ProgramMissing) as exc:
        print(exc, file=sys.stderr)
        return False
    return True


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.servers")
    verbs = parser.add_subparsers(dest="verb", required=True)
    installing = verbs.add_parser("install", help="install the programs that are missing")
    installing.add_argument(
        "--browser",
        action="store_true",
        help="browser, Prometheus, nginx, PgBouncer and Node.js, too",
    )
    installing.add_argument("--load", action="store_true", help="what sends load, too")
    installing.add_argument(
        "--clusters", action="store_true", help="what the tests of clusters need, too"
    )
    running = verbs.add_parser("run", help="run a command with the servers up")
    running.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    if arguments.verb == "install":
        code = programs.install(programs.SERVERS)
        # Their tests are skipped without them, which is a failure in CI only.
        others = (*programs.BROWSER, *programs.AROUND, *programs.GENERATORS)
        if arguments.browser and programs.install(others) and programs.is_ci():
            code = 1
        if arguments.browser and not _install_packages() and programs.is_ci():
            code = 1
        if arguments.clusters:
            code = programs.install(programs.CLUSTERS) or code
        if arguments.load:
            code = programs.install(programs.LOAD) or code
        return code
    try:
        return run(arguments.command)
    except (programs.ProgramMissing, ServerFailed) as exc:
        print(exc, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
