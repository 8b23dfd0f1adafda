"""The output when the service starts, and when it cannot start."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gunicorn import REPOSITORY, GunicornService, service_environment

GUNICORN = ("gunicorn", "-c", "gunicorn.conf.py")
FLASK = ("flask", "users", "list")


def start(program: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *program],
        cwd=REPOSITORY,
        env=service_environment({"ENVIRONMENT": "testing", **environment}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def occupied() -> Iterator[GunicornService]:
    with GunicornService({"ENVIRONMENT": "testing"}) as service:
        yield service


@pytest.mark.parametrize("program", [GUNICORN, FLASK], ids=["gunicorn", "flask"])
def test_each_invalid_setting_is_reported_in_one_line(
    program: tuple[str, ...], tmp_path: Path
) -> None:
    run = start(
        program, INSTANCE_DIR=str(tmp_path), SMTP_PORT="many", DEBUG="perhaps", LOG_FORMAT="xml"
    )

    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        "userapi: DEBUG: must be true or false",
        "userapi: SMTP_PORT: must be a whole number from 1 to 65535",
        "userapi: LOG_FORMAT: must be one of json, console",
    ]


@pytest.mark.parametrize("program", [GUNICORN, FLASK], ids=["gunicorn", "flask"])
def test_a_folder_that_cannot_be_made_is_a_line(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")

    run = start(program, INSTANCE_DIR=str(tmp_path / "in-the-way" / "instance"))

    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("userapi: INSTANCE_DIR: must be a writable folder")


@pytest.mark.thorough
@pytest.mark.parametrize("program", [GUNICORN, FLASK], ids=["gunicorn", "flask"])
def test_a_log_that_cannot_be_made_is_a_line(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")

    run = start(program, INSTANCE_DIR=str(tmp_path), LOG_FILE=str(tmp_path / "in-the-way" / "log"))

    assert run.returncode == 1
    assert run.stderr == "userapi: LOG_FILE: must be the path of a writable file\n"


@pytest.mark.thorough
def test_it_does_not_serve_without_a_key_to_sign_with(tmp_path: Path) -> None:
    run = start(GUNICORN, INSTANCE_DIR=str(tmp_path), JWT_ALGORITHM="ES256")

    assert run.returncode == 1
    assert "userapi: JWT_ALGORITHM: ES256 needs a key; run `flask keys generate`" in run.stderr
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.thorough
def test_production_without_a_key_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    run = start(
        GUNICORN,
        INSTANCE_DIR=str(tmp_path),
        ENVIRONMENT="production",
        DATABASE_URL="postgresql://userapi:kingfisher-79@127.0.0.1:1/userapi",
        SECRET_KEY="kP3vWm8sQz1xLr6tYb9nHd4gJf7cUa2e",
        PASSWORD_PEPPER="Xd7fGh2jKl5zXc8vBn1mQw4eRt6yUi9o",
        ENCRYPTION_KEY="pR9sTu1vWx3yZa5bCd7eFg9hIj1kLm3n",
    )

    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("userapi: JWT_ALGORITHM: ES256 needs a key; run `flask keys generate`")
    assert "JWT_PRIVATE_KEY_FILE" in line and "JWT_SECRET_KEY" in line


@pytest.mark.thorough
def test_a_used_port_is_reported_without_a_traceback(
    occupied: GunicornService, tmp_path: Path
) -> None:
    run = start(GUNICORN, INSTANCE_DIR=str(tmp_path), BIND=f"127.0.0.1:{occupied.port}")

    assert run.returncode == 1
    assert "Address already in use" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.thorough
def test_an_unavailable_database_is_reported_without_a_traceback(tmp_path: Path) -> None:
    run = start(
        ("flask", "db", "upgrade"),
        INSTANCE_DIR=str(tmp_path),
        DATABASE_URL="postgresql://userapi:kingfisher-79@127.0.0.1:1/userapi",
    )

    assert run.returncode == 1
    assert "The database cannot be used" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    assert "kingfisher-79" not in run.stdout + run.stderr


@pytest.mark.thorough
def test_the_first_administrators_password_is_shown_once(tmp_path: Path) -> None:
    """As scripts/run.sh does it, which ends in Gunicorn."""
    environment = {**os.environ, **{"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4"}}
    environment |= {"INSTANCE_DIR": str(tmp_path), "BIND": "127.0.0.1:none"}

    first, second = (
        subprocess.run(
            ["scripts/run.sh"],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        ).stdout
        for _ in range(2)
    )

    (password,) = re.findall(r"(?:[0-9a-f]{6}-){4}[0-9a-f]{6}", first)
    assert password not in second
    assert password.encode() not in b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
