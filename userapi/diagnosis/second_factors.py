"""Second factors: whether their secrets can be decrypted, and whether demanding roles exist."""

from collections.abc import Iterator

from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.factors.secret_rotation import SecretRotation
from userapi.infrastructure.database import reading
from userapi.roles.graph import read_graph
from userapi.settings import Settings


def findings(settings: Settings, rotation: SecretRotation) -> Iterator[Finding]:
    """Yield which secrets no key decrypts, and which roles in the settings do not exist."""
    with reading() as connection:
        unreadable = rotation.count_unreadable(connection)
        outdated = rotation.count_outdated(connection) - unreadable
        names = read_graph(connection).names
    if unreadable:
        yield Finding(
            "mfa",
            Level.FAULT,
            f"no key decrypts the secrets of {unreadable} authenticator apps:"
            " their codes are rejected with 503",
            "Add the former ENCRYPTION_KEY to ENCRYPTION_KEY_PREVIOUS.",
        )
    else:
        yield Finding("mfa", Level.OK, "a key decrypts the secret of every authenticator app")
    unknown = sorted(set(settings.mfa_required_roles) - set(names))
    yield from warnings(
        "mfa",
        (
            outdated,
            f"former keys encrypt the secrets of {outdated} authenticator apps",
            "Run `flask encryption rotate`.",
        ),
        (
            unknown,
            f"MFA_REQUIRED_ROLES names roles that do not exist: {', '.join(unknown)}",
            "Correct MFA_REQUIRED_ROLES, or create these roles.",
        ),
    )
