"""The previous release of the service, checked out and with the libraries that it pins.

`PREVIOUS_RELEASE` names its commit. Its virtual environment is cached under the hash of its
requirements: only a release with other libraries needs a new one.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support.gunicorn import REPOSITORY, Release

INSTALL_TIMEOUT_SECONDS = 600


def previous_release(directory: Path) -> Release:
    """Return the release that `PREVIOUS_RELEASE` names, with its code in a new directory."""
    commit = (REPOSITORY / "PREVIOUS_RELEASE").read_text("utf-8").strip()
    folder = directory / f"release-{commit[:12]}"
    folder.mkdir()
    # Not `git worktree`, which would leave an entry in the repository if the run is killed.
    archive = directory / "release.tar"
    subprocess.run(
        ["git", "-C", REPOSITORY, "archive", f"--output={archive}", commit],
        check=True,
        capture_output=True,
    )
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()
    return Release(folder=folder, python=_interpreter_for(folder / "requirements.txt"))


def _interpreter_for(requirements: Path) -> Path:
    """Return an interpreter with these libraries; install them where that has not been done."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    environment = _cache_directory() / f"venv-{digest}"
    python = environment / "bin" / "python"
    complete = environment / "complete"
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", environment],
                [python, "-m", "pip", "install", "--quiet", "--requirement", requirements],
            ):
                subprocess.run(
                    [str(word) for word in command], check=True, timeout=INSTALL_TIMEOUT_SECONDS
                )
            complete.touch()
    return python


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_SECONDS)


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "userapi-tests"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
