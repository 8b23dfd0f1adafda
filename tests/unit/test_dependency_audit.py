"""The look for libraries with known weaknesses finds one that is known to have some."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.gunicorn import REPOSITORY
from tests.support.ports import free_port

WEAK = "# a canary\nJinja2==2.10  # CVE-2019-10906\nFlask==3.1.3\n"
SOUND = "Flask==3.1.3\nJinja2==3.1.6\n"


def audit(requirements: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    file = folder / "requirements.txt"
    file.write_text(requirements)
    return subprocess.run(
        [sys.executable, "scripts/audit.py", str(file)],
        cwd=REPOSITORY,
        env={"AUDIT_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def nobody() -> str:
    """Return the address of an index that cannot be reached."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def index() -> Iterator[str]:
    """Return the address of an index that answers as PyPI does."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - name of the base
            known = {"aliases": ["CVE-2019-10906"], "fixed_in": ["2.10.1"], "withdrawn": None}
            withdrawn = known | {"id": "PYSEC-0", "withdrawn": "2020-01-01T00:00:00Z"}
            weaknesses = [known | {"id": "PYSEC-2019-217"}] if "jinja2/2.10/" in self.path else []
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulnerabilities": [withdrawn, *weaknesses]}).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_weak_library_is_found_where_pypi_answers(index: str, tmp_path: Path) -> None:
    run = audit(WEAK, tmp_path, index)

    assert run.returncode == 1
    assert "jinja2==2.10: PYSEC-2019-217, CVE-2019-10906 (mended in 2.10.1)\n" in run.stdout
    assert "2 libraries, 1 with known weaknesses" in run.stdout


def test_a_weak_library_is_found_where_pypi_is_out_of_reach(nobody: str, tmp_path: Path) -> None:
    run = audit(WEAK, tmp_path, nobody)

    assert run.returncode == 1
    assert "jinja2==2.10: " in run.stdout
    assert "CVE-2020-28493" in run.stdout
    assert "only what was known in 2021" in run.stdout


def test_sound_libraries_pass(index: str, nobody: str, tmp_path: Path) -> None:
    assert audit(SOUND, tmp_path, index).returncode == 0
    assert audit(SOUND, tmp_path, nobody).returncode == 0


def test_a_file_without_pins_is_no_success(nobody: str, tmp_path: Path) -> None:
    assert audit("Flask>=3\n", tmp_path, nobody).returncode == 2
