"""The library of WebAuthn is loaded at its first use: it takes 15 MB of each process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployments import ENVIRONMENT
from tests.support.gunicorn import REPOSITORY, service_environment

PROGRAM = """
import json, sys
from pathlib import Path
from userapi import create_app
from userapi.settings import Settings

environment = json.loads(sys.argv[1])
app = create_app(Settings.from_env(environment, instance_dir=Path(sys.argv[2])))
heavy = ("webauthn", "cbor2", "OpenSSL", "pyasn1")
before = [name for name in heavy if name in sys.modules]
answer = app.test_client().post("/api/v1/auth/login/passkey/options")
after = [name for name in heavy if name in sys.modules]
print(json.dumps([before, answer.status_code, after]))
"""


@pytest.mark.thorough
def test_the_start_of_the_service_does_not_import_the_library(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(dict(ENVIRONMENT)), str(tmp_path)],
        cwd=REPOSITORY,
        env=service_environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    before, status, after = json.loads(run.stdout.splitlines()[-1])
    assert (before, status) == ([], 200)
    assert "webauthn" in after
