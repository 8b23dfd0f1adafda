"""Password hashes: whether the peppers that they need are configured."""

from collections.abc import Iterator

from userapi.diagnosis.checks import Check
from userapi.diagnosis.findings import Finding, Level
from userapi.infrastructure.database import reading
from userapi.passwords.peppers import COUNTED_UP_TO, Peppers


def findings(database: Check, peppers: Peppers) -> Iterator[Finding]:
    """Yield which peppers are missing, and how many hashes need a former one."""
    if database.missing_peppers:
        yield Finding(
            "passwords",
            Level.FAULT,
            "hashes need a pepper that is not configured"
            f" ({', '.join(database.missing_peppers)}): their users cannot log in",
            "Set PASSWORD_PEPPER to its former value, or add that value to"
            " PASSWORD_PEPPER_PREVIOUS.",
        )
        return
    yield Finding("passwords", Level.OK, "the peppers of all hashes are configured")
    former = set(peppers.by_id) - {peppers.current_id}
    if not former:
        return
    with reading() as connection:
        counts = peppers.counts(connection)
    for pepper in sorted(former):
        more = "or more " if counts[pepper] == COUNTED_UP_TO else ""
        unused = "" if counts[pepper] else ": you can remove it from PASSWORD_PEPPER_PREVIOUS"
        yield Finding(
            "passwords",
            Level.OK,
            f"{counts[pepper]} {more}hashes need the former pepper {pepper}{unused}",
        )
