"""Comparable projects, measured like the service: `make bench ARGS=--peers`.

Each is a small application as the project's documentation shows it, in a virtual environment of its
own, with as many users in PostgreSQL, two worker processes, and bcrypt with cost 12.
"""

import json
import os
import subprocess
import urllib.parse
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Request
from benchmarks.stage import PASSWORD, new_database, wait_for
from tests.support.gunicorn import REPOSITORY
from tests.support.ports import free_port

FOLDER = Path(__file__).parent
ENVIRONMENTS = REPOSITORY / "build" / "peers"
USERS_IN_TURN = 64

LogIn = Callable[[str], Request]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A comparable project: its application, its server, and its requests."""

    name: str
    module: str
    requirements: str
    server: Sequence[str]
    """The program and its arguments, without the address."""
    address: str
    """The option of the server that takes HOST:PORT, or `port` for `--host` and `--port`."""
    log_in: Callable[[Sequence[str]], Request]
    token_of: Callable[[Mapping[str, object]], str]
    token_header: Callable[[str], dict[str, str]]
    ready_at: str


@dataclass(frozen=True, slots=True)
class Served:
    """A peer that runs, and the requests to send."""

    base_url: str
    pid: int
    requests: Mapping[str, Callable[[], Request]]


def _form_log_in(emails: Sequence[str]) -> Request:
    return Request(
        path="/auth/jwt/login",
        method="POST",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        bodies=[
            urllib.parse.urlencode({"username": email, "password": PASSWORD}) for email in emails
        ],
    )


def _json_log_in(emails: Sequence[str]) -> Request:
    return Request(
        path="/login?include_auth_token",
        method="POST",
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        bodies=[json.dumps({"email": email, "password": PASSWORD}) for email in emails],
    )


def _nested_token(answer: Mapping[str, object]) -> str:
    match answer:
        case {"response": {"user": {"authentication_token": str(token)}}}:
            return token
    raise AssertionError(f"no token in {answer}")


PEERS = (
    Peer(
        name="fastapi-users",
        module="fastapi_users_app",
        requirements="requirements-fastapi-users.txt",
        server=("uvicorn", "--workers", "2", "--log-level", "error", "fastapi_users_app:app"),
        address="port",
        log_in=_form_log_in,
        token_of=lambda answer: str(answer["access_token"]),
        token_header=lambda token: {"Authorization": f"Bearer {token}"},
        ready_at="/openapi.json",
    ),
    Peer(
        name="Flask-Security",
        module="flask_security_app",
        requirements="requirements-flask-security.txt",
        server=(
            *("gunicorn", "--worker-class", "gthread", "--workers", "2", "--threads", "8"),
            *("--keep-alive", "15", "--log-level", "error", "flask_security_app:app"),
        ),
        address="--bind",
        log_in=_json_log_in,
        token_of=_nested_token,
        token_header=lambda token: {"Authentication-Token": token},
        ready_at="/login",
    ),
)


@contextmanager
def serving(peer: Peer, users: int) -> Iterator[Served]:
    """Install a peer if it is missing, create its users, and serve it."""
    programs = _installed(peer)
    database = new_database(f"peer_{peer.module}")
    environment = {**os.environ, "PEER_DSN": database, "PEER_PASSWORD": PASSWORD}
    print(f"preparing: {peer.name}", flush=True)
    subprocess.run(
        [programs / "python", f"{peer.module}.py", str(users)],
        cwd=FOLDER,
        env=environment,
        check=True,
    )
    port = free_port()
    address = (
        ["--host", "127.0.0.1", "--port", str(port)]
        if peer.address == "port"
        else [peer.address, f"127.0.0.1:{port}"]
    )
    process = subprocess.Popen(
        [programs / "python", "-m", *peer.server, *address], cwd=FOLDER, env=environment
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        wait_for(base_url + peer.ready_at)
        emails = [f"user-{number}@example.com" for number in range(min(USERS_IN_TURN, users))]
        token = peer.token_of(_answer(base_url, peer.log_in(emails[:1])))
        me = Request(path="/me", headers=peer.token_header(token))
        yield Served(
            base_url,
            process.pid,
            {"GET /users/me": lambda: me, "POST /auth/login": lambda: peer.log_in(emails)},
        )
    finally:
        process.terminate()
        process.wait(20)


def _installed(peer: Peer) -> Path:
    """Return the folder of the programs of a peer's virtual environment."""
    folder = ENVIRONMENTS / peer.module
    programs = folder / "bin"
    if not (programs / "python").exists():
        venv.create(folder, with_pip=True)
    subprocess.run(
        [programs / "python", "-m", "pip", "install", "-qq", "-r", FOLDER / peer.requirements],
        check=True,
    )
    return programs


def _answer(base_url: str, request: Request) -> Mapping[str, object]:
    sent = urllib.request.Request(
        base_url + request.path, data=request.bodies[0].encode(), headers=request.headers
    )
    with urllib.request.urlopen(sent, timeout=30) as answer:
        read: Mapping[str, object] = json.loads(answer.read())
    return read
