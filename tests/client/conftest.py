"""The client package with the service as it is shipped, and its examples as readers run them.

`USERAPI_CLIENT_PYTHON` names another interpreter for the examples: `make client` sets it to one
where only the built package is installed.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.guardian import guardian
from tests.support.gunicorn import (
    REPOSITORY,
    GunicornService,
    add_administrator,
    service_environment,
)
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.servers import end_process
from userapi_client import Client, Login, Tokens

ADMINISTRATOR = "admin"
PASSWORD = "violet-harbour-93-lantern"
FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4", "RATE_LIMIT_ENABLED": "false"}
EXAMPLES = REPOSITORY / "client" / "examples"
PYTHON = os.environ.get("USERAPI_CLIENT_PYTHON", "")

StartProgram = Callable[..., subprocess.Popen[bytes]]
StartServer = Callable[..., str]


def package_environment() -> dict[str, str]:
    """Return what lets a program import the package: nothing where it is installed."""
    return {} if PYTHON else {"PYTHONPATH": str(REPOSITORY / "client" / "src")}


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    """Return a function that starts Python in `client/examples` with the given variables alone."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, folder: Path = EXAMPLES, **environment: str) -> Any:
        with (tmp_path / "programs.log").open("ab") as log:
            process = subprocess.Popen(
                [PYTHON or sys.executable, *arguments],
                env=service_environment({**package_environment(), **environment}),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian.watch(process.pid, ended_by=signal.SIGKILL)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            end_process(process, signal.SIGKILL)


@pytest.fixture
def start_server(start_program: StartProgram) -> StartServer:
    """Return a function that starts a web application and returns its address."""

    def start(*arguments: str, **environment: str) -> str:
        port = str(free_port())
        process = start_program(*(part.replace("PORT", port) for part in arguments), **environment)
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert process.poll() is None, "the program has ended"
            return status_of("GET", f"{url}/media") == 401

        wait_until(answers)
        return url

    return start


def send(method: str, url: str, *, token: str | None = None) -> httpx2.Response:
    """Send one request to an example."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.request(method, url, headers=headers, timeout=60, trust_env=False)


def status_of(method: str, url: str, *, token: str | None = None) -> int:
    """Return the status of the response, or 0 if no server listens."""
    try:
        return send(method, url, token=token).status_code
    except httpx2.TransportError:
        return 0


@dataclass(slots=True)
class People:
    """Makes users with permissions of another service, and logs them in."""

    service: GunicornService
    admin: Client
    made: int = field(default=0)

    def holding(self, *permissions: str) -> tuple[str, Tokens]:
        """Return the id and the tokens of a new user who holds these permissions."""
        self.made += 1
        name = f"person-{self.service.port}-{self.made}"
        self.admin.roles.create(name=name, permissions=list(permissions))
        user = self.admin.users.create(
            username=name, email=f"{name}@example.com", password=PASSWORD, roles=[name]
        )
        with Client(self.service.base_url, Login(name, PASSWORD)) as client:
            client.auth.me()
            assert client.tokens is not None
            return user.id, client.tokens


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    with GunicornService(FAST) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture(scope="module")
def admin(service: GunicornService) -> Iterator[Client]:
    with Client(service.base_url, Login(ADMINISTRATOR, PASSWORD)) as client:
        yield client


@pytest.fixture(scope="module")
def people(service: GunicornService, admin: Client) -> People:
    return People(service, admin)
