"""A private deployment for one test, on which the blocks of the guide are run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.operations.guide import blocks
from tests.support.guardian import guardian
from tests.support.gunicorn import REPOSITORY, GunicornService
from tests.support.programs import POSTGRES
from tests.support.servers import end_process

MAX_SECONDS = 100
PARTS = ("userapi", "migrations", "deploy", "scripts")
FILES = (
    *(".env.example", "Dockerfile", "Makefile", "docker-compose.yml", "gunicorn.conf.py"),
    *("requirements.txt", "wsgi.py"),
)
STAND_INS = ("docker", "kubectl", "make", "pip", "python3.11")


class Stage:
    """The service with PostgreSQL and Redis, and a shell that works on the same deployment."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.service = GunicornService(environment)
        self.environment = self.service.environment
        # A copy, because procedures write files next to the code: .env, secrets/, key.pem, dumps.
        self.folder = folder / "userapi"
        self.calls = folder / "calls.log"
        self._programs = folder / "programs"
        _copy_project(self.folder)
        self._write_programs()

    def run(self, section: str, number: int = 1, *, exit_code: int = 0, **variables: str) -> str:
        """Run a block of the guide as it is written, and return what it prints.

        Each command has to succeed, unless the block is expected to end with another code.
        """
        done = subprocess.run(
            self._command(section, number),
            cwd=self.folder,
            env=self._shell_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
        assert done.returncode == exit_code, f"{section}, block {number}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def start(
        self, section: str, number: int = 1, **variables: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a block that does not end by itself, and stop it at the end of the context."""
        with (self.folder.parent / "started.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                self._command(section, number),
                cwd=self.folder,
                env=self._shell_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian.watch(process.pid, ended_by=signal.SIGKILL)
        try:
            yield process
        finally:
            end_process(process, signal.SIGTERM)
            guardian.release(process.pid)

    def inner_commands(self) -> list[str]:
        """Return the calls of stand-ins, one line each."""
        return self.calls.read_text("utf-8").splitlines() if self.calls.exists() else []

    def restart(self, **changed: str) -> None:
        """Restart the service with other settings, which later blocks get as well."""
        self.service.stop()
        self.environment.update(changed)
        self.service.start()

    def _command(self, section: str, number: int) -> list[str]:
        block = blocks().get((section, number))
        assert block is not None, f"The guide has no block {number} under {section!r}."
        # `-e` ends a block at its first failure, as a careful reader would stop there.
        return ["bash", "-euo", "pipefail", "-c", block.text]

    def _shell_environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        database = urlsplit(self.environment.get("DATABASE_URL", ""))
        postgresql = {
            "PGHOST": database.hostname or "",
            "PGPORT": str(database.port or ""),
            "PGUSER": database.username or "",
            "PGPASSWORD": database.password or "",
        }
        path = [str(self._programs)]
        if POSTGRES.find() is not None:
            path.append(str(POSTGRES.require().parent))
        return {
            **self.environment,
            **{name: value for name, value in postgresql.items() if value},
            "PATH": os.pathsep.join([*path, self.environment.get("PATH", os.defpath)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "STAGE_CALLS": str(self.calls),
            "STAGE_PROJECT": str(self.folder),
            **variables,
        }

    def _write_programs(self) -> None:
        self._programs.mkdir()
        python = sys.executable
        scripts = {
            "flask": f'exec "{python}" -m flask "$@"',
            "gunicorn": f'exec "{python}" -m gunicorn "$@"',
            "redis-cli": f'exec "{shutil.which("redis-cli")}" -u "$REDIS_URL" "$@"',
        }
        stand_in = Path(__file__).with_name("stand_ins.py")
        for name in STAND_INS:
            scripts[name] = f'exec "{python}" "{stand_in}" {name} "$@"'
        for name, script in scripts.items():
            file = self._programs / name
            file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
            file.chmod(0o755)


def _copy_project(folder: Path) -> None:
    for part in PARTS:
        shutil.copytree(
            REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in FILES:
        shutil.copy(REPOSITORY / file, folder)
