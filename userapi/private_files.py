"""Files that nobody but their owner reads: what the service keeps in INSTANCE_DIR."""

import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
# What the service makes in INSTANCE_DIR. Nothing else there is touched: a wrong setting may name a
# folder that belongs to others.
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
    """Make a folder that only its owner enters, and those above it, as far as they are missing.

    Raises OSError.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file that only its owner reads, or take an old one away from others.

    SQLite gives the files beside it the same mode. Raises OSError.

    A file that exists is not opened: closing it would release every lock that SQLite holds on it
    in this process (POSIX.1 fcntl), and another process would then delete the WAL in use.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    _tighten(path)


def tighten_instance(folder: Path) -> None:
    """Take what an earlier release made readable for others away from them."""
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
        # What is in a folder that others cannot enter is out of their reach already.
        if not path.stat().st_mode & 0o077:
            return
        for child in path.iterdir():
            _tighten_with_contents(child)
    _tighten(path)


def _tighten(path: Path) -> None:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    # Of another owner, such as a volume of a container engine: not ours to change.
    if mode & 0o077 and found.st_uid == os.geteuid():
        path.chmod(mode & 0o700)
