"""`make dev`: Flask's own server, with its debugger and one line of log for each request."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from werkzeug.debug import DebuggedApplication
from werkzeug.test import Client

from tests.support.deployments import ENVIRONMENT, build_app
from tests.support.gunicorn import REPOSITORY, service_environment
from tests.support.polling import wait_until
from tests.support.ports import free_port
from userapi.clock import SystemClock


def test_the_debugger_shows_a_crash(tmp_path: Path) -> None:
    """The handler of all exceptions answered before the debugger saw any."""
    app = build_app(ENVIRONMENT, clock=SystemClock(), instance_dir=tmp_path)
    app.debug = True
    app.view_functions["health.live"] = _crash
    client = Client(DebuggedApplication(app.wsgi_app, evalex=True))

    response = client.get("/api/v1/health/live")

    assert response.status_code == 500
    assert "ZeroDivisionError" in response.text and "Werkzeug Debugger" in response.text


def test_without_the_debugger_a_crash_reveals_nothing(tmp_path: Path) -> None:
    app = build_app(ENVIRONMENT, clock=SystemClock(), instance_dir=tmp_path)
    app.debug = True
    app.view_functions["health.live"] = _crash

    response = app.test_client().get("/api/v1/health/live")

    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")


def _crash() -> str:
    raise ZeroDivisionError


@pytest.mark.thorough
def test_a_request_is_logged_once(tmp_path: Path) -> None:
    """Flask's server wrote a line of its own about each request."""
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "flask", "run", "--port", str(port)],
            cwd=REPOSITORY,
            env=service_environment({"INSTANCE_DIR": str(tmp_path / "instance")}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "Running on" in log.read_text("utf-8"))
        urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=60).read()
        wait_until(lambda: "/openapi.json" in log.read_text("utf-8"))
    finally:
        server.terminate()
        server.wait(30)

    assert len(re.findall("/openapi.json", log.read_text("utf-8"))) == 1
