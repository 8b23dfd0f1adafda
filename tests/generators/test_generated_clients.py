"""Clients that common generators create from the OpenAPI document are typed, and log in."""

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.conftest import ADMINISTRATOR, FAST, PASSWORD
from tests.operations.guide import blocks_of
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.npm import NpmFailed, installed_packages
from tests.support.programs import NODE, ProgramMissing, is_ci

HERE = Path(__file__).parent
CREDENTIALS = (ADMINISTRATOR, PASSWORD)
EXPECTED = f"bearer {ADMINISTRATOR} {ADMINISTRATOR} invalid_credentials\n"
# Why the generator leaves this operation out: it knows JSON, forms and binary bodies alone.
KNOWN_WARNING = (
    "WARNING parsing POST /api/v1/users/import within transfers. Endpoint will not be generated."
)


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    with GunicornService(FAST) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture(scope="module")
def document(service: GunicornService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    with urllib.request.urlopen(service.base_url + "/openapi.json", timeout=60) as answer:
        path.write_bytes(answer.read())
    return path


def run(*command: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow  # The TypeScript client below is made of the same document.
def test_a_python_client_is_typed_and_logs_in(
    service: GunicornService, document: Path, tmp_path: Path
) -> None:
    shutil.copy(HERE / "log_in.py", tmp_path)
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    # This module's own warnings about Python are no word about the document.
    generator = (sys.executable, "-W", "ignore", "-m", "openapi_python_client", "generate")
    options = ("--meta", "none", "--config", "config.yml", "--output-path", "generated_client")

    generated = run(*generator, "--path", document, *options, directory=tmp_path)
    checked = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file", "", "log_in.py"),
        "generated_client",
        directory=tmp_path,
    )
    used = run(sys.executable, "log_in.py", service.base_url, *CREDENTIALS, directory=tmp_path)

    assert generated.returncode == 0
    assert re.findall("WARNING.*", generated.stdout + generated.stderr) == [KNOWN_WARNING]
    assert checked.returncode == 0, checked.stdout
    assert (used.returncode, used.stdout) == (0, EXPECTED), used.stderr


@pytest.mark.thorough
def test_a_typescript_client_is_typed_and_logs_in(
    service: GunicornService, document: Path, tmp_path: Path
) -> None:
    try:
        node, packages = NODE.require(), installed_packages()
    except (ProgramMissing, NpmFailed) as exc:
        if is_ci():
            raise
        pytest.skip(str(exc))
    shutil.copy(packages / "package.json", tmp_path)
    shutil.copy(HERE / "log_in.ts", tmp_path)
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    tools = packages / "node_modules"

    generated = run(
        *(node, tools / "openapi-typescript" / "bin" / "cli.js", document, "-o", "schema.d.ts"),
        directory=tmp_path,
    )
    checked = run(
        *(node, tools / "typescript" / "bin" / "tsc", "--strict", "--noUncheckedIndexedAccess"),
        *("--target", "es2022", "--module", "nodenext", "--outDir", "made", "log_in.ts"),
        directory=tmp_path,
    )
    shutil.copy(packages / "package.json", tmp_path / "made")
    used = run(node, "made/log_in.js", service.base_url, *CREDENTIALS, directory=tmp_path)

    assert generated.returncode == 0, generated.stderr
    assert "warn" not in (generated.stdout + generated.stderr).lower()
    assert checked.returncode == 0, checked.stdout
    assert (used.returncode, used.stdout) == (0, EXPECTED), used.stderr


@pytest.mark.slow  # The same generators as above, once more.
def test_the_commands_of_the_guide_run_as_they_are_written(
    service: GunicornService, tmp_path: Path
) -> None:
    try:
        packages = installed_packages()
    except (ProgramMissing, NpmFailed) as exc:
        if is_ci():
            raise
        pytest.skip(str(exc))
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (block,) = (
        block.text
        for block in blocks_of((REPOSITORY / "docs" / "consuming.md").read_text("utf-8"))
        if block.section == "Generate a client"
    )
    commands = block.replace("http://localhost:8000", service.base_url)

    done = run(
        "bash", "-euc", f"PATH={Path(sys.executable).parent}:$PATH\n{commands}", directory=tmp_path
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "schema.d.ts").exists()
    assert list(tmp_path.glob("*-client/*/api/auth/login.py"))
