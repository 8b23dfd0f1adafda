"""The current time. Every service receives a clock, so tests move time instead of waiting."""

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol


class Clock(Protocol):
    """Returns the time as an aware datetime in UTC."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that runs with the machine's and that a test can move."""

    def __init__(self) -> None:
        self._offset = timedelta()

    def now(self) -> datetime:
        """Return the machine's time plus all that the clock was advanced."""
        return datetime.now(UTC) + self._offset

    def advance(self, **delta: Any) -> None:
        """Move forward by the given `timedelta` arguments."""
        self._offset += timedelta(**delta)

    def set(self, moment: datetime) -> None:
        """Move the clock to `moment`."""
        self._offset = moment - datetime.now(UTC)

    def reset(self) -> None:
        """Return to the machine's time."""
        self._offset = timedelta()


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 in UTC with a trailing Z and microseconds."""
    # A third of the time of strftime; every line of the log contains a time.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
