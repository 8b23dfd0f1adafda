"""The service as it is shipped: Gunicorn with the project's configuration, over TCP."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from click.testing import Result

from tests.support.commands import run_command
from tests.support.databases import RUN_DIRECTORY, sqlite_template
from tests.support.deployments import migrate_with
from tests.support.folders import parent_of_temporary_folders
from tests.support.guardian import family, guardian, send
from tests.support.ports import free_port
from tests.support.preloaded import INHERITED, AnyProcess, Order, forker, start_interpreter
from tests.support.servers import end_process

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0
LIVE = "/api/v1/health/live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The code of a release, and the interpreter that has its libraries."""

    folder: Path
    python: Path

    def start(
        self, module: str, *arguments: str, environment: Mapping[str, str], log: Path
    ) -> AnyProcess:
        """Run a module of the release as a program; its output is appended to the log."""
        # Other releases have other libraries.
        start = forker.start if self == PRESENT_RELEASE else start_interpreter
        return start(
            Order(
                python=str(self.python),
                module=module,
                arguments=list(arguments),
                folder=str(self.folder),
                environment=dict(environment),
                log=str(log),
            )
        )


PRESENT_RELEASE = Release(folder=REPOSITORY, python=Path(sys.executable))


class ServiceFailed(Exception):
    """The service did not start or stop; the message ends with its log."""


class GunicornService:
    """The service with the given variables and no others, on a port of its own.

    Without INSTANCE_DIR it gets a new directory, which it keeps when it is started again. In a
    test run an embedded database is migrated already, unless `migrated` is false.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        port: int | None = None,
        release: Release = PRESENT_RELEASE,
        migrated: bool = True,
    ) -> None:
        self.port = port or free_port()
        self._release = release
        self._scratch = tempfile.TemporaryDirectory(
            prefix="userapi-service-", dir=parent_of_temporary_folders()
        )
        self.directory = Path(self._scratch.name)
        guardian.remove(self.directory)
        self.log_path = self.directory / "service.log"
        self.environment = {
            **service_environment(environment),
            "BIND": f"127.0.0.1:{self.port}",
        }
        # Removed with the directory, also what a killed service leaves in it.
        self.environment.setdefault("TMPDIR", self._scratch.name)
        is_embedded = not {"DATABASE_URL", "INSTANCE_DIR"} & self.environment.keys()
        self.environment.setdefault("INSTANCE_DIR", str(self.directory / "instance"))
        if is_embedded and migrated and RUN_DIRECTORY in os.environ:
            self._copy_migrated_database(Path(os.environ[RUN_DIRECTORY]))
        self._process: AnyProcess | None = None

    @property
    def base_url(self) -> str:
        """The URL that paths are appended to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of Gunicorn's master. Raises RuntimeError when it is stopped."""
        if self._process is None:
            raise RuntimeError("the service is not running")
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of Gunicorn's workers."""
        return family(self.pid)[1:]

    @property
    def log(self) -> str:
        """The output of the service since its first start."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start and wait until requests are answered. Raises ServiceFailed."""
        self.launch()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_live():
            if self._process is None or self._process.poll() is not None:
                raise ServiceFailed(f"the service ended:\n{self.log}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"the service does not answer:\n{self.log}")
            time.sleep(0.05)
        return self

    def launch(self) -> AnyProcess:
        """Start without waiting, for a service that is expected to fail."""
        self._process = self._release.start(
            *("gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"),
            environment=self.environment,
            log=self.log_path,
        )
        guardian.watch(self._process.pid, ended_by=signal.SIGKILL)
        return self._process

    def stop(self, *, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Send SIGTERM, wait, and return the exit code. Raises ServiceFailed."""
        process = self._take()
        process.terminate()
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as exc:
            end_process(process, signal.SIGKILL)
            raise ServiceFailed(f"the service did not stop:\n{self.log}") from exc
        guardian.release(process.pid)
        return code

    def kill(self) -> None:
        """Kill master and workers at once, as a power cut would."""
        end_process(self._take(), signal.SIGKILL)

    def pause(self) -> None:
        """Freeze master and workers."""
        send(family(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Resume master and workers."""
        send(reversed(family(self.pid)), signal.SIGCONT)

    def command(self, *arguments: str, stdin: str = "") -> Result:
        """Run a `flask` command with the settings of the service, within this process."""
        return run_command(self.environment, *arguments, stdin=stdin)

    def flask(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a `flask` command with the settings of the service, as shipped."""
        return subprocess.run(
            [self._release.python, "-m", "flask", *arguments],
            cwd=self._release.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self._scratch.cleanup()
        guardian.keep(self.directory)

    def _copy_migrated_database(self, run_directory: Path) -> None:
        instance = Path(self.environment["INSTANCE_DIR"])
        instance.mkdir(mode=0o700)
        template = sqlite_template(run_directory, migrate_with(run_directory / "instance"))
        shutil.copyfile(template, instance / "userapi.sqlite3")

    def _take(self) -> AnyProcess:
        if self._process is None:
            raise RuntimeError("the service is not running")
        process, self._process = self._process, None
        return process

    def _is_live(self) -> bool:
        try:
            with urllib.request.urlopen(self.base_url + LIVE, timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def service_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a process of the service: the given ones and what any needs."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1", **environment}


def add_administrator(service: GunicornService, password: str, *, username: str = "admin") -> None:
    """Create an administrator with the address `<username>@example.com`."""
    created = service.command(
        *("users", "create-admin", "--username", username),
        *("--email", f"{username}@example.com", "--password-stdin"),
        stdin=password + "\n",
    )
    assert created.exit_code == 0, created.output
