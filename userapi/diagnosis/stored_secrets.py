"""Secrets: whether they are strong, and which users of the machine can read their files."""

import stat
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from userapi.diagnosis.findings import Finding, Level
from userapi.settings import Settings, files_with_secrets, weak_secrets

# A container engine mounts secrets here, readable by the service alone.
MOUNTED_SECRETS = Path("/run/secrets")


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield each weak secret, and each file with secrets that others can read."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    given = {item.name for item in fields(settings) if values[item.name] != item.default}
    for problem in weak_secrets({name: values[name] for name in given}):
        yield Finding(
            "secrets",
            Level.WARNING,
            f"{problem}; production would reject it",
            "Generate one: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
        )
    files = [*files_with_secrets(), settings.instance_dir / "secrets.json"]
    if settings.jwt_private_key_file is not None:
        files.append(settings.jwt_private_key_file)
    files += sorted(settings.keys_folder.glob("*.pem"))
    open_files = [file for file in files if _others_read(file)]
    for file in open_files:
        yield Finding(
            "secrets",
            Level.FAULT,
            f"every user of this machine can read {file}",
            f"chmod 600 {file}",
        )
    if not open_files:
        yield Finding("secrets", Level.OK, "no file with secrets is readable by others")


def _others_read(file: Path) -> bool:
    if not file.is_file() or file.is_relative_to(MOUNTED_SECRETS):
        return False
    return bool(file.stat().st_mode & stat.S_IROTH)
