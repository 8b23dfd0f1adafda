"""Programs that developers start without pytest find what they import."""

import subprocess
import sys

import pytest

from tests.support.gunicorn import REPOSITORY

PROGRAMS = (
    *("benchmarks", "benchmarks.flames", "benchmarks.scale", "benchmarks.versions"),
    *("tests.abuse", "tests.chaos", "tests.guards", "tests.soak", "tests.support.servers"),
)


@pytest.mark.thorough
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_explains_itself(program: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
