"""The commands in README.md and docs/ run; those of docs/operating.md are in tests/operations."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask

from tests.operations.guide import blocks_of
from tests.support.deployments import Backend
from tests.support.facts import events
from tests.support.gunicorn import REPOSITORY
from tests.support.users import MakeUser
from userapi.machines.key_text import generate_key
from userapi.machines.models import OwnerType

GUIDES = [
    path.relative_to(REPOSITORY)
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
    if path.name != "operating.md"
]
# Each block of shell commands, and the test that runs it.
TESTS_OF_BLOCKS = {
    ("README.md", "User Management Service", 1): "tests/blackbox/test_make_run.py",
    ("README.md", "Two commands", 1): "tests/blackbox/test_make_run.py",
    ("README.md", "A tour in ten lines", 1): "tests/blackbox/test_as_shipped.py",
    ("README.md", "A tour in ten lines", 2): "tests/blackbox/test_as_shipped.py",
    ("README.md", "With real servers", 1): "tests/blackbox/test_make_run.py",
    ("docs/consuming.md", "Call with a service account", 1): "tests/blackbox/test_oauth_clients.py",
    ("docs/consuming.md", "Call with a service account", 2): "tests/blackbox/test_oauth_clients.py",
    ("docs/consuming.md", "Generate a client", 1): "tests/generators/test_generated_clients.py",
}
# Arguments for commands that a sentence names without them.
ARGUMENTS = {
    "audit verify --anchor": ["audit", "verify"],
    "events replay": ["events", "replay", "EVENT"],
    "events replay ID…": ["events", "replay", "EVENT"],
    "events tail": ["events", "tail", "--no-follow"],
    "keys": ["keys", "list"],
    "keys revoke": ["keys", "revoke", "KID", "--yes"],
    "audit prune": ["audit", "prune", "--older-than", "1d", "--yes"],
    "seed": ["seed", "--users", "5"],
    "seed --users 100000": ["seed", "--users", "5"],
    "sessions revoke": ["sessions", "revoke", "ada"],
    "sessions revoke --all": ["sessions", "revoke", "--all", "--yes"],
    "users create": ["users", "create", "bob", "--email", "bob@example.com", "--generate"],
    "users create-admin": ["users", "create-admin", "--if-none", "--generate"]
    + ["--username", "admin", "--email", "admin@example.com"],
    "users import": ["users", "import", "FILE"],
}
INPUTS = {"api-keys check": generate_key("ua", OwnerType.SERVICE, UUID(int=1)).text}
# Runs until it is stopped: tests/integration/test_worker.py. Changes tables: tests/migrations.
ELSEWHERE = {"worker", "db upgrade"}


def inline(program: str) -> Iterator[str]:
    """Return the commands in sentences."""
    for guide in GUIDES:
        text = (REPOSITORY / guide).read_text("utf-8")
        sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        yield from re.findall(rf"`{program} ([a-z][^`\n]*)`", sentences)


def test_each_block_of_commands_is_run_by_a_test() -> None:
    blocks = {
        (str(guide), block.section, block.number)
        for guide in GUIDES
        for block in blocks_of((REPOSITORY / guide).read_text("utf-8"))
    }

    assert blocks == TESTS_OF_BLOCKS.keys()
    assert all((REPOSITORY / test).exists() for test in TESTS_OF_BLOCKS.values())


@pytest.mark.thorough
@pytest.mark.parametrize("backend", [Backend.SQLITE], indirect=True)
@pytest.mark.parametrize("command", sorted(set(inline("flask")) - ELSEWHERE))
def test_a_command_in_a_sentence_runs(
    app: Flask, make_app: object, make_user: MakeUser, tmp_path: Path, command: str
) -> None:
    make_user("ada")
    assert callable(make_app)
    keys: Flask = make_app(JWT_ALGORITHM="ES256", JWT_KEYS_DIR=str(tmp_path / "keys"))
    runner = keys.test_cli_runner()
    runner.invoke(args=["keys", "generate"])
    kid = next((tmp_path / "keys").glob("*.pem")).stem
    file = tmp_path / "users.csv"
    file.write_text("username,email\nzoe,zoe@example.com\n")
    values = {"EVENT": str(events(app)[0].id), "KID": kid, "FILE": str(file)}

    arguments = [values.get(word, word) for word in ARGUMENTS.get(command, command.split())]
    result = runner.invoke(args=arguments, input=INPUTS.get(command))

    # `doctor` ends with 1 where a test deployment is unwise, which it is.
    assert result.exit_code in ({0, 1} if command == "doctor" else {0}), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def targets() -> set[str]:
    """Return the targets of make that sentences name, without variables such as `ARGS="…"`."""
    words = {word for command in inline("make") for word in shlex.split(command)}
    return {word for word in words if "=" not in word}


@pytest.mark.parametrize("target", sorted(targets()))
def test_a_target_of_make_in_a_sentence_is_there(target: str) -> None:
    run = subprocess.run(
        ["make", "--dry-run", target],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stderr
