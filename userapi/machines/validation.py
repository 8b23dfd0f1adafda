"""The rules for names and expiry of service accounts and API keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from userapi.accounts.addresses import USERNAME_PATTERN
from userapi.characters import is_blank, without_blanks_around
from userapi.errors import FieldError, Invalid, invalid_field
from userapi.permissions import is_permission

MAX_KEY_NAME = 100
MAX_DESCRIPTION = 500
MAX_REASON = 500


class _Unset:
    """The type of `UNSET`."""


# A field that a request omits, where null has another meaning.
UNSET = _Unset()
Expiry = datetime | None | _Unset


def parse_account_name(text: str) -> str:
    """Return the name in lower case, without surrounding blanks. Raises Invalid."""
    text = without_blanks_around(text)
    if not USERNAME_PATTERN.fullmatch(text):
        raise invalid_field(
            "name",
            "Must be 3 to 64 characters of a-z, 0-9, '.', '_' and '-', and begin with a letter or"
            " digit.",
            "invalid_name",
        )
    return text.lower()


def require_key_name(text: str) -> None:
    """Raise Invalid for the name of a key that is empty, blank or too long."""
    if is_blank(text):
        raise invalid_field("name", "Must contain visible characters.", "blank")
    if len(text) > MAX_KEY_NAME:
        raise invalid_field("name", f"Must be at most {MAX_KEY_NAME} characters.", "too_long")


def require_permissions(names: Sequence[str]) -> None:
    """Raise Invalid that names each text that is not a permission."""
    faults = [
        FieldError(
            f"permissions.{index}",
            "Must be resource:action, resource:* or * in lower case.",
            "invalid_permission",
        )
        for index, name in enumerate(names)
        if not is_permission(name)
    ]
    if faults:
        raise Invalid(faults)


class KeyLifetimes:
    """When keys expire: by the request, by API_KEY_DEFAULT_DAYS, and by API_KEY_MAX_DAYS."""

    def __init__(self, *, default_days: int, max_days: int) -> None:
        """0 days are no end, and no limit."""
        self._default = timedelta(days=default_days) if default_days else None
        self._longest = timedelta(days=max_days) if max_days else None

    def expiry_of(self, given: Expiry, now: datetime) -> datetime | None:
        """Return when a new key expires; None: never. Raises Invalid.

        A time that was given is kept or rejected, never changed.
        """
        if isinstance(given, _Unset):
            return self.after(self._default, now)
        if given is not None and given <= now:
            raise invalid_field("expires_at", "Must be a time in the future.", "in_the_past")
        if self._longest is not None and (given is None or given > now + self._longest):
            raise invalid_field(
                "expires_at",
                f"Must be at most {self._longest.days} days from now.",
                "expires_too_late",
            )
        return given

    def after(self, life: timedelta | None, now: datetime) -> datetime | None:
        """Return the end of a lifetime from now on, at most the longest one; None: no end."""
        spans = [span for span in (life, self._longest) if span is not None]
        return now + min(spans) if spans else None
