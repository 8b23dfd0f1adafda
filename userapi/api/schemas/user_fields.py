"""Fields of users: passwords, and the texts of a profile with a special form."""

from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError

from userapi.accounts.profiles import is_locale, is_phone_number, is_timezone
from userapi.api.field_errors import CodedMessage

from .fields import Text

# A password has 8 to 128 characters. The policy checks that together with its other rules.
MAX_PASSWORD_CHARACTERS = 1024


class Password(Text):
    """A password, which responses never contain."""

    def __init__(self, **kwargs: Any) -> None:
        about = {"format": "password", "example": "violet-harbour-93-lantern"}
        about |= kwargs.pop("metadata", {})
        super().__init__(
            max_length=MAX_PASSWORD_CHARACTERS, load_only=True, metadata=about, **kwargs
        )


class PhoneNumber(Text):
    """A telephone number."""

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        super().check(value)
        if not is_phone_number(value):
            raise ValidationError(
                CodedMessage(
                    "Must be a telephone number such as +41 44 668 18 00.", "invalid_phone"
                )
            )


class LanguageTag(Text):
    """A language tag."""

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        super().check(value)
        if not is_locale(value):
            raise ValidationError(CodedMessage("Must be a locale such as de-CH.", "invalid_locale"))


class TimeZone(Text):
    """A time zone."""

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        super().check(value)
        if not is_timezone(value):
            raise ValidationError(
                CodedMessage("Must be a time zone such as Europe/Zurich.", "invalid_timezone")
            )


class WebAddress(Text):
    """An http or https URL."""

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        super().check(value)
        try:
            parts = urlsplit(value)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and " " not in value
        except ValueError:
            fits = False
        if not fits:
            raise ValidationError(CodedMessage("Must be an http or https URL.", "invalid_url"))
