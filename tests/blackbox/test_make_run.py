"""`make run` on a terminal, on a used port, and with real servers."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.guardian import guardian
from tests.support.gunicorn import REPOSITORY, GunicornService, service_environment
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.servers import end_process
from tests.support.terminal import Terminal
from userapi_client import Client

RUN = "scripts/run.sh"
FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4", "RATE_LIMIT_ENABLED": "false"}


def environment_for(directory: Path, port: int, **more: str) -> dict[str, str]:
    own = {"INSTANCE_DIR": str(directory), "BIND": f"127.0.0.1:{port}"}
    return service_environment({**FAST, **own, **more})


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/api/v1/health/live", timeout=60) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


StartRun = Callable[..., Path]


@pytest.fixture
def start_run(tmp_path: Path) -> Iterator[StartRun]:
    """Return what runs it without a terminal, with these variables; it returns the log."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int, **more: str) -> Path:
        path = tmp_path / f"{port}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [RUN],
                cwd=REPOSITORY,
                env=environment_for(tmp_path / "instance", port, **more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian.watch(process.pid, ended_by=signal.SIGKILL)
        started.append(process)
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"))
        return path

    yield start
    for process in started:
        end_process(process, signal.SIGKILL)


@pytest.mark.thorough
def test_on_a_terminal_the_log_is_readable_and_ctrl_c_is_quiet(tmp_path: Path) -> None:
    port = free_port()
    program = ["make", "--old-file", ".venv/.runtime", "run"]
    with Terminal(
        program, directory=REPOSITORY, environment=environment_for(tmp_path, port)
    ) as terminal:
        terminal.wait_for("Listening at")
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"))
        assert answers(f"http://localhost:{port}")
        terminal.wait_for("path=/api/v1/health/live")
        terminal.wait_for("audit.sealed")
        before, coloured = terminal.text, terminal.output
        terminal.press("\x03")
        terminal.wait_until_ended()

    assert f"Open http://localhost:{port}/console/ for the console." in before
    assert f"Open http://localhost:{port}/docs to try the API." in before
    assert "\x1b[" in coloured
    assert '{"' not in before
    assert terminal.text.removeprefix(before).replace("^C", "").strip() == ""


@pytest.mark.thorough
def test_ctrl_c_is_quiet_while_it_prepares(tmp_path: Path) -> None:
    environment = environment_for(tmp_path, free_port())
    with Terminal([RUN], directory=REPOSITORY, environment=environment) as terminal:
        wait_until(lambda: (tmp_path / "secrets.json").exists())
        terminal.press("\x03")
        terminal.wait_until_ended()

    assert "Traceback" not in terminal.text
    assert "Listening at" not in terminal.text


@pytest.mark.slow  # tests/blackbox/test_logs.py reads each line of the service itself.
def test_without_a_terminal_each_line_of_the_log_is_json(start_run: StartRun) -> None:
    port = free_port()

    log = start_run(port).read_text("utf-8")

    lines = log[log.index("Open http://localhost") :].splitlines()
    assert len([json.loads(line) for line in lines if not line.startswith("Open ")]) >= 3
    assert "\x1b[" not in log[log.index("Open http://localhost") :]


@pytest.mark.thorough
def test_a_used_port_is_one_line_that_names_bind(tmp_path: Path) -> None:
    with GunicornService(FAST) as other:
        run = subprocess.run(
            [RUN],
            cwd=REPOSITORY,
            env=environment_for(tmp_path, other.port),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"userapi: BIND: 127.0.0.1:{other.port}: Address already in use.")
    assert f"BIND=127.0.0.1:{other.port + 1}" in line


@pytest.mark.thorough
def test_with_real_servers_mails_leave(
    start_run: StartRun, make_database: Callable[[str], PostgresDatabase], tmp_path: Path
) -> None:
    """Nothing ran the worker: an invitation waited for ever."""
    port = free_port()
    log = start_run(port, DATABASE_URL=make_database("run").url)
    ask_for_a_reset(port, "admin@example.com")

    wait_until(lambda: list((tmp_path / "instance" / "mail").glob("*.eml")))

    (mail,) = (tmp_path / "instance" / "mail").glob("*.eml")
    text = mail.read_bytes().replace(b"=\n", b"").decode()
    assert re.search(rf"http://localhost:{port}/console/set-password", text)
    assert "No worker is running: it runs inside the service." in log.read_text("utf-8")


@pytest.mark.slow
def test_a_worker_that_is_there_is_left_to_its_work(
    start_run: StartRun, make_database: Callable[[str], PostgresDatabase]
) -> None:
    url = make_database("run-worker").url
    first = start_run(free_port(), DATABASE_URL=url)
    wait_until(lambda: "worker.started" in first.read_text("utf-8"))

    second = start_run(free_port(), DATABASE_URL=url).read_text("utf-8")

    assert "No worker is running" in first.read_text("utf-8")
    assert re.search(r"A worker is running already: \S+:\d+\.", second)
    assert "worker.started" not in second


def ask_for_a_reset(port: int, email: str) -> None:
    with Client(f"http://127.0.0.1:{port}") as client:
        client.auth.request_password_reset(email)
