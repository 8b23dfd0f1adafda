"""Stand-ins for programs that a test cannot run: container engines and package installers.

Called as `stand_ins.py PROGRAM ARGUMENT …`. Each checks its arguments against the files of the
project and runs the command inside, if there is one. What it does not know ends with 64, so that a
new command in the guide is noticed.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

UNKNOWN = 64
PROJECT = Path(os.environ["STAGE_PROJECT"])


def main() -> NoReturn:
    """Play the program that the first argument names."""
    name, *arguments = sys.argv[1:]
    with Path(os.environ["STAGE_CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(f"{name} {' '.join(arguments)}\n")
    sys.exit(PROGRAMS[name](arguments))


def docker(arguments: Sequence[str]) -> int:
    """Play `docker compose up | run | exec | restart | stop | start` of the project's file."""
    if list(arguments[:1]) != ["compose"]:
        return UNKNOWN
    action, *rest = arguments[1:]
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text("utf-8"))["services"]
    words = [word for word in rest if not word.startswith("-")]
    if action in {"run", "exec"}:
        return _run_inside(words[0] in services, rest[rest.index(words[0]) + 1 :])
    if action in {"up", "restart", "stop", "start"}:
        return 0 if all(word in services for word in words) else UNKNOWN
    return UNKNOWN


def kubectl(arguments: Sequence[str]) -> int:
    """Play `create`, `apply -k`, `exec`, `rollout restart` on the manifests of the project."""
    rest = list(arguments)
    if rest[:1] == ["-n"]:
        rest = rest[2:]
    match rest:
        case ["exec", target, "--", *command]:
            return _run_inside(target in _deployments(), command)
        case ["create", "namespace", name]:
            return 0 if name == "userapi" else UNKNOWN
        case ["create", "secret", "generic", _, *values]:
            return _create_secret(values)
        case ["apply", "-k", folder]:
            return 0 if (PROJECT / folder / "kustomization.yaml").is_file() else UNKNOWN
        case ["rollout", "restart", *targets]:
            return 0 if targets and set(targets) <= _deployments() else UNKNOWN
    return UNKNOWN


def make(arguments: Sequence[str]) -> int:
    """Run `make secrets` by the script behind it, without an installation."""
    if list(arguments) != ["secrets"]:
        return UNKNOWN
    return subprocess.run([PROJECT / "scripts" / "make_secrets.sh"], check=False).returncode


def python(arguments: Sequence[str]) -> int:
    """Make no virtual environment, but what is sourced from it."""
    match list(arguments):
        case ["-m", "venv", folder]:
            activate = PROJECT / folder / "bin" / "activate"
            activate.parent.mkdir(parents=True)
            activate.write_text("")
            return 0
    return UNKNOWN


def pip(arguments: Sequence[str]) -> int:
    """Check that what is to be installed is what this environment has."""
    if list(arguments[:1]) != ["install"]:
        return UNKNOWN
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet"]
    return subprocess.run([*command, *arguments[1:]], check=False).returncode


def _run_inside(known: bool, command: Sequence[str]) -> int:
    if not known or not command:
        return UNKNOWN
    return subprocess.run(list(command), check=False).returncode


def _create_secret(values: Sequence[str]) -> int:
    for value in values:
        kind, _, assigned = value.partition("=")
        if kind == "--from-literal" and all(assigned.partition("=")):
            continue
        if kind == "--from-file" and Path(assigned).is_file():
            continue
        return UNKNOWN
    return 0 if values else UNKNOWN


def _deployments() -> set[str]:
    names = set()
    for file in (PROJECT / "deploy" / "kubernetes" / "base").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            if document and document["kind"] == "Deployment":
                names.add(f"deploy/{document['metadata']['name']}")
    return names


PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "docker": docker,
    "kubectl": kubectl,
    "make": make,
    "pip": pip,
    "python3.11": python,
}

if __name__ == "__main__":
    main()
