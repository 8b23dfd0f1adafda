"""The findings that `flask doctor` prints."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is."""

    FAULT = "fault"
    OK = "ok"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one thing that was examined, and how to fix it where it is not right."""

    subject: str
    level: Level
    text: str
    fix: str | None = None


def warnings(subject: str, *cases: tuple[object, str, str]) -> Iterator[Finding]:
    """Yield a warning for each case that applies. A case is (applies, text, fix)."""
    for applies, text, fix in cases:
        if applies:
            yield Finding(subject, Level.WARNING, text, fix)


def readable_duration(seconds: float) -> str:
    """Return a duration in its largest unit of which it has at least two."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
