"""The audit log: whether the keys of its seals are configured."""

from collections.abc import Iterator

from userapi.audit.seals import AuditSeals
from userapi.diagnosis.findings import Finding, Level
from userapi.infrastructure.database import reading


def findings(seals: AuditSeals) -> Iterator[Finding]:
    """Yield which keys of seals are missing."""
    with reading() as connection:
        missing = seals.missing_keys(connection)
    if not missing:
        yield Finding("audit", Level.OK, "the keys of all seals are configured")
        return
    yield Finding(
        "audit",
        Level.FAULT,
        f"seals were made with a key that is not here ({', '.join(missing)}): nothing is sealed"
        " under a chain that cannot be checked",
        "Set AUDIT_SEAL_KEY_PREVIOUS or ENCRYPTION_KEY_PREVIOUS to the former key, or"
        " AUDIT_SEAL_KEY_PREVIOUS to the former SECRET_KEY for an `unnamed` one. If it is lost:"
        " `flask audit anchor --reason TEXT`.",
    )
