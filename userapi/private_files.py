"""Files that only their owner can read: what the service stores in INSTANCE_DIR."""

import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
# What the service creates in INSTANCE_DIR. Other files are not changed, because a wrong setting may
# name a folder that belongs to others.
OURS = (
    "userapi.sqlite3*",
    "secrets.json",
    ".secrets.json*",
    "keys",
    "mail",
    "console",
    "*.lock",
    "*.log",
)


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter, and the missing folders above it.

    Raises OSError.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def make_file(path: Path) -> None:
    """Create an empty file that only its owner can read; restrict an existing one to its owner.

    SQLite gives its WAL and journal the same mode. Raises OSError.

    An existing file is not opened: closing it would release every lock that SQLite holds on it
    in this process (POSIX.1 fcntl), and another process would then delete the WAL in use.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    _tighten(path)


def tighten_instance(folder: Path) -> None:
    """Restrict files to their owner that an earlier release made readable for others."""
    if not folder.is_dir():
        return
    ours = {path for pattern in OURS for path in folder.glob(pattern)}
    for path in ours:
        _tighten_with_contents(path)
    if all(path in ours for path in folder.iterdir()):
        _tighten(folder)


def _tighten_with_contents(path: Path) -> None:
    if path.is_symlink():
        return
    if path.is_dir():
        # Others cannot reach what is in a folder that they cannot enter.
        if not path.stat().st_mode & 0o077:
            return
        for child in path.iterdir():
            _tighten_with_contents(child)
    _tighten(path)


def _tighten(path: Path) -> None:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    # A file of another owner, such as a volume of a container engine, cannot be changed.
    if mode & 0o077 and found.st_uid == os.geteuid():
        path.chmod(mode & 0o700)
