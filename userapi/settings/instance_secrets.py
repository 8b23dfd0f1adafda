"""`secrets.json` in the instance folder: secrets generated once for development and testing."""

import fcntl
import json
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from userapi.private_files import make_folder
from userapi.settings.errors import SettingsError

GENERATED = ("secret_key", "jwt_secret_key", "password_pepper", "encryption_key")


def instance_secrets(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return these secrets of the instance; generate those that are not stored yet.

    Raises SettingsError if the folder is not writable or the file is damaged.
    """
    path = folder / "secrets.json"
    try:
        stored = _stored(path)
        if any(name not in stored for name in names):
            stored = _generate_missing(path)
    except (OSError, ValueError) as exc:
        raise SettingsError(
            [f"INSTANCE_DIR: must be a writable folder ({type(exc).__name__})"]
        ) from exc
    return {name: stored[name] for name in names}


def _stored(path: Path) -> dict[str, str]:
    """Return the content of `secrets.json`; empty if there is no file. Raises ValueError."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(document, dict):
        raise ValueError("not a document of secrets")
    return document


def _generate_missing(path: Path) -> dict[str, str]:
    """Add the secrets that `secrets.json` lacks, such as those newer than the file.

    Two workers that start at the same time agree on one file because of the lock. The file is
    replaced as a whole, so a reader never sees half of it.
    """
    make_folder(path.parent)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = _stored(path)
        generated = {n: secrets.token_urlsafe(48) for n in GENERATED if not stored.get(n)}
        if generated:
            stored |= generated
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(stored, indent=2))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        return stored
    finally:
        os.close(lock)
        with suppress(OSError):
            draft.unlink()
