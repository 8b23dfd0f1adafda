"""The generated modules are those that the scripts would write now."""

import subprocess
import sys
from pathlib import Path

import generate_synchronous
import pytest


@pytest.mark.parametrize("name", sorted(generate_synchronous.rendered()))
def test_the_modules_for_threads_are_current(name: str) -> None:
    """Otherwise run `python scripts/generate_synchronous.py` and format the result."""
    text = generate_synchronous.rendered()[name]
    if not (Path(sys.executable).parent / "ruff").exists():
        pytest.skip("ruff is not installed.")
    for command in (["check", "--fix", "--quiet", "--select", "I"], ["format", "--quiet"]):
        target = generate_synchronous.TARGET / name
        text = subprocess.run(
            [Path(sys.executable).parent / "ruff", *command, "--stdin-filename", target, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert (generate_synchronous.TARGET / name).read_text("utf-8") == text
