"""The programs that the tests need next to the service: where they are, and their installation.

On Debian and Ubuntu apt-get installs them. Elsewhere the result is a list of programs to install
by hand.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POLICY_FILE = Path("/usr/sbin/policy-rc.d")
POLICY_BAN = "#!/bin/sh\n# Only while the tests of userapi install their servers.\nexit 101\n"
POLICY_BACKUP = POLICY_FILE.with_name("policy-rc.d.before-userapi-tests")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that may be missing. `places` are globs, looked at before the PATH."""

    title: str
    commands: tuple[str, ...]
    package: str
    places: tuple[str, ...] = ()

    def find(self) -> Path | None:
        """Return where the program is: the newest of the known places, else from the PATH."""
        for place in self.places:
            found = [path for path in Path("/").glob(place.lstrip("/")) if os.access(path, os.X_OK)]
            if found:
                return max(found, key=_version_in_path)
        for command in self.commands:
            on_path = shutil.which(command)
            if on_path is not None:
                return Path(on_path)
        return None

    def require(self) -> Path:
        """Return where the program is. Raises ProgramMissing."""
        path = self.find()
        if path is None:
            raise ProgramMissing(self)
        return path


class ProgramMissing(Exception):
    """A program that the tests need is not installed."""

    def __init__(self, program: Program) -> None:
        super().__init__(
            f"{program.title} is not installed (Debian package {program.package}): "
            "run `python -m tests.support.servers install`"
        )
        self.program = program


def _version_in_path(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(path)))


POSTGRES = Program(
    "PostgreSQL",
    ("postgres",),
    "postgresql",
    (
        "/usr/lib/postgresql/*/bin/postgres",
        "/usr/pgsql-*/bin/postgres",
        "/opt/homebrew/opt/postgresql@*/bin/postgres",
    ),
)
REDIS = Program("Redis", ("redis-server", "valkey-server"), "redis-server")
# The script in /usr/sbin of Debian insists on becoming the user rabbitmq; this one does not.
RABBITMQ = Program(
    "RabbitMQ",
    ("rabbitmq-server",),
    "rabbitmq-server",
    (
        "/usr/lib/rabbitmq/bin/rabbitmq-server",
        "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
        "/opt/homebrew/sbin/rabbitmq-server",
    ),
)
EPMD = Program(
    "Erlang's port mapper", ("epmd",), "erlang-base", ("/usr/lib/erlang/erts-*/bin/epmd",)
)
CHROMIUM = Program("Chromium", ("chromium", "chromium-browser", "google-chrome"), "chromium")
CHROMEDRIVER = Program("Chromium's driver", ("chromedriver",), "chromium-driver")

PROMETHEUS = Program("Prometheus", ("prometheus",), "prometheus")
NGINX = Program("nginx", ("nginx",), "nginx-light", ("/usr/sbin/nginx",))
PGBOUNCER = Program("PgBouncer", ("pgbouncer",), "pgbouncer", ("/usr/sbin/pgbouncer",))
NODE = Program("Node.js", ("node", "nodejs"), "nodejs")
NPM = Program("npm", ("npm",), "npm")
WRK = Program("wrk", ("wrk",), "wrk")
FAKETIME = Program("faketime", ("faketime",), "faketime")
# Debian's own is too old to build the overlays.
KUBECTL = Program("kubectl", ("kubectl",), "kubectl")

SERVERS = (POSTGRES, REDIS, RABBITMQ, EPMD)
BROWSER = (CHROMIUM, CHROMEDRIVER)
# Used together with the service in deploy/.
AROUND = (PROMETHEUS, NGINX, PGBOUNCER)
# Generate clients from the OpenAPI document.
GENERATORS = (NODE, NPM)
# What the tests of clusters need in addition to the servers.
CLUSTERS = (FAKETIME,)
# Sends the load of `make bench`.
LOAD = (WRK,)


def is_ci() -> bool:
    """Return whether a missing program is a failure and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def may_be_skipped(program: Program) -> bool:
    """Return whether tests of a program are skipped: it is missing, and this is not CI."""
    return program.find() is None and not is_ci()


def install(programs: tuple[Program, ...]) -> int:
    """Install what is missing; return the exit code. Starts none of the system's services."""
    missing = [program for program in programs if program.find() is None]
    if not missing:
        return 0
    packages = sorted({program.package for program in missing})
    print("Missing: " + ", ".join(program.title for program in missing), flush=True)
    if shutil.which("apt-get") is None:
        return _ask_for(missing, packages)
    if os.geteuid() != 0:
        return _install_with_sudo(missing, packages)
    try:
        with _services_stay_off():
            _apt_get("update")
            _apt_get("install", "--yes", "--no-install-recommends", *packages)
    except subprocess.CalledProcessError:
        return _ask_for(missing, packages)
    still_missing = [program for program in missing if program.find() is None]
    return _ask_for(still_missing, packages) if still_missing else 0


def _install_with_sudo(missing: list[Program], packages: list[str]) -> int:
    sudo = shutil.which("sudo")
    # -n: a test command must not wait for a password.
    if sudo is None or subprocess.run([sudo, "-n", "true"], check=False).returncode != 0:
        return _ask_for(missing, packages)
    others = (*BROWSER, *AROUND, *GENERATORS)
    more = ["--browser"] if any(program in others for program in missing) else []
    more += ["--load"] if any(program in LOAD for program in missing) else []
    more += ["--clusters"] if any(program in CLUSTERS for program in missing) else []
    command = [sudo, "-n", sys.executable, "-m", "tests.support.servers", "install", *more]
    return subprocess.run(command, check=False).returncode


def _ask_for(missing: list[Program], packages: list[str]) -> int:
    print(
        "The tests need programs that could not be installed from here. Please install "
        + ", ".join(program.title for program in missing)
        + f".\nOn Debian and Ubuntu: apt-get install {' '.join(packages)}",
        file=sys.stderr,
    )
    return 1


def _apt_get(*arguments: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments],
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Forbid package scripts to start services while the block runs."""
    # Our own file is left by an installation that was killed.
    if POLICY_FILE.exists() and POLICY_FILE.read_text("utf-8") != POLICY_BAN:
        POLICY_FILE.rename(POLICY_BACKUP)
    POLICY_FILE.write_text(POLICY_BAN, "utf-8")
    POLICY_FILE.chmod(0o755)
    try:
        yield
    finally:
        POLICY_FILE.unlink(missing_ok=True)
        if POLICY_BACKUP.exists():
            POLICY_BACKUP.rename(POLICY_FILE)
