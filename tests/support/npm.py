"""The npm packages of tests/generators, pinned, in a folder of their own outside of the project."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.programs import NPM

PACKAGES = Path(__file__).resolve().parents[1] / "generators"
TIMEOUT_SECONDS = 240


class NpmFailed(Exception):
    """The packages could not be installed; the message says why and what to do."""


def installed_packages() -> Path:
    """Return the folder with `node_modules`, installed now where it is missing.

    Raises NpmFailed, ProgramMissing.
    """
    lock = (PACKAGES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "userapi-tests"
    folder = cache / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    if folder.exists():
        return folder
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PACKAGES / name, draft / name)
        _npm(draft, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
        try:
            draft.rename(folder)
        except OSError:
            pass  # Another process was first; its packages are the same.
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _npm(folder: Path, *arguments: str) -> None:
    try:
        run = subprocess.run(
            [str(NPM.require()), *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise NpmFailed(f"npm did not finish within {TIMEOUT_SECONDS} s; is it online?") from exc
    if run.returncode != 0:
        raise NpmFailed(
            "npm could not install the packages of tests/generators/package-lock.json. Is this"
            f" machine online? It needs them once.\n{run.stderr[-2000:]}"
        )
