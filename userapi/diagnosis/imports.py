"""Waiting imports: whether the current key encrypts their rows."""

from collections.abc import Iterator

from userapi.accounts.imports.batch_rotation import BatchRotation
from userapi.diagnosis.findings import Finding, warnings
from userapi.infrastructure.database import reading


def findings(rotation: BatchRotation) -> Iterator[Finding]:
    """Yield how many batches a former or unknown key encrypts, if any."""
    with reading() as connection:
        outdated = rotation.count_outdated(connection)
    yield from warnings(
        "imports",
        (
            outdated,
            f"former keys encrypt {outdated} batches of waiting imports",
            "Run `flask encryption rotate`.",
        ),
    )
