"""`make audit` finds a known vulnerability, and never passes for an unchecked library."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.gunicorn import REPOSITORY, service_environment
from tests.support.ports import free_port

WEAK = "# a canary\nWerkzeug==0.15.2  # CVE-2019-14806\nFlask==3.1.3\n"
SOUND = "Flask==3.1.3\nJinja2==3.1.6\n"
NAMES = {"jinja2==2.10": "PYSEC-2019-217", "werkzeug==0.15.2": "PYSEC-2019-140"}


def audit(requirements: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    file = folder / "requirements.txt"
    file.write_text(requirements)
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "scripts/audit.py", str(file)],
        cwd=REPOSITORY,
        env=service_environment({"AUDIT_OSV_URL": url, **cache}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


StartIndex = Callable[[dict[str, str]], str]


@pytest.fixture
def start_index() -> Iterator[StartIndex]:
    """Return what starts an index of advisories as OSV has it, with these libraries in it."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def start(known: dict[str, str]) -> str:
        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802 - name of the base
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pin = f"{asked['package']['name']}=={asked['version']}"
                found = [advisory(known[pin], asked["package"]["name"])] if pin in known else []
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"vulns": found} if found else {}).encode())

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Answers)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def advisory(name: str, package: str) -> dict[str, object]:
    return {
        "id": name,
        "aliases": ["CVE-2019-10906"],
        "summary": "A weakness.",
        "details": "A weakness.",
        "published": "2019-04-07T00:00:00Z",
        "modified": "2019-04-07T00:00:00Z",
        "affected": [
            {
                "package": {"name": package, "ecosystem": "PyPI"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}
                ],
            }
        ],
    }


def test_a_weak_library_is_found(start_index: StartIndex, tmp_path: Path) -> None:
    run = audit(WEAK, tmp_path, start_index(NAMES))

    assert run.returncode == 1, run.stdout + run.stderr
    assert "werkzeug==0.15.2: PYSEC-2019-140, CVE-2019-10906 (fixed in 9.9)\n" in run.stdout
    assert "2 libraries against" in run.stdout
    assert "1 known vulnerabilities, 0 libraries not checked" in run.stdout


@pytest.mark.thorough
def test_sound_libraries_pass(start_index: StartIndex, tmp_path: Path) -> None:
    run = audit(SOUND, tmp_path, start_index(NAMES))

    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 known vulnerabilities" in run.stdout


@pytest.mark.thorough
def test_without_a_source_it_says_that_nothing_was_checked(tmp_path: Path) -> None:
    run = audit(WEAK, tmp_path, f"http://127.0.0.1:{free_port()}")

    assert run.returncode == 0
    assert "NOTHING WAS CHECKED" in run.stdout


@pytest.mark.thorough
def test_a_source_that_knows_nothing_is_none(start_index: StartIndex, tmp_path: Path) -> None:
    """A mirror without advisories found no weakness in anything."""
    run = audit(WEAK, tmp_path, start_index({}))

    assert run.returncode == 0
    assert "NOTHING WAS CHECKED" in run.stdout


def test_a_file_without_pins_is_no_success(tmp_path: Path) -> None:
    assert audit("Flask>=3\n", tmp_path, "http://127.0.0.1:1").returncode == 2
