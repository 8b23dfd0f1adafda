"""The three ways to deploy the service, as far as possible without a container engine."""

import subprocess
import time
import urllib.request

import pytest
import yaml

from tests.operations.stage import Stage
from userapi.authentication.key_files import parse_keys

START_TIMEOUT_SECONDS = 120.0


def test_on_one_machine_with_docker(stage: Stage) -> None:
    output = stage.run("On one machine, with Docker")

    assert "admin" in output
    compose = yaml.safe_load((stage.folder / "docker-compose.yml").read_text("utf-8"))
    files = [stage.folder / secret["file"] for secret in compose["secrets"].values()]
    assert [file for file in files if not file.is_file() or not file.read_text()] == []
    assert "docker compose up -d" in stage.inner_commands()
    assert "admin@example.com" in _shown(stage)


@pytest.mark.slow
def test_on_kubernetes(stage: Stage) -> None:
    stage.run("On Kubernetes")

    (key,) = parse_keys(stage.folder / "key.pem", algorithm="ES256", variable="KEY")
    assert key.private is not None
    assert "kubectl apply -k deploy/kubernetes/overlays/ha" in stage.inner_commands()
    assert "admin@example.com" in _shown(stage)


@pytest.mark.slow
def test_by_hand(stage: Stage) -> None:
    stage.run("By hand")
    with stage.start("By hand", 2), stage.start("By hand", 3) as worker:
        _wait_for(f"{stage.service.base_url}/api/v1/health/ready", worker)
        _wait_for("http://127.0.0.1:9100/metrics", worker)

    assert (stage.folder / ".env").stat().st_mode & 0o777 == 0o600


def _shown(stage: Stage) -> str:
    return stage.service.command("users", "show", "admin").stdout


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, "the process has ended"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)
