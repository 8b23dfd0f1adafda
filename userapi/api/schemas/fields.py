"""Fields that convert nothing: a wrong JSON type is an error.

Only this module and `collection_fields` override the hooks of marshmallow's fields, which its guide
on custom fields documents although their names begin with an underscore. Subclasses elsewhere
override `check`.
"""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate

from userapi.api.field_errors import CodedMessage
from userapi.characters import is_blank, without_blanks_around
from userapi.clock import rfc3339
from userapi.infrastructure.network_addresses import canonical_address

RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
# An offset such as +01:00 whose + was not encoded in a query string and so became a blank.
PLUS_LOST = re.compile(r" [0-9]{2}:[0-9]{2}$", re.ASCII)


def wrong_type(expected: str) -> ValidationError:
    """Return the error for a value of another JSON type."""
    return ValidationError(CodedMessage(f"Must be {expected}.", "wrong_type"))


def require_clean(text: str) -> None:
    """Raise ValidationError for control characters and lone surrogates."""
    for character in text:
        if character < " " or (character >= "\x7f" and unicodedata.category(character) in _UNCLEAN):
            raise ValidationError(
                CodedMessage(
                    "Must not contain control characters or lone surrogates.", "invalid_characters"
                )
            )


_UNCLEAN = {"Cc", "Cs"}


class Text(fields.String):
    """A text without control characters, with a length in characters."""

    def __init__(
        self, *, min_length: int = 0, max_length: int | None = None, **kwargs: Any
    ) -> None:
        self.min_length = min_length
        self.max_length = max_length
        length = validate.Length(min=min_length or None, max=max_length)
        super().__init__(validate=length, **kwargs)

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        if len(value) < self.min_length:
            message = f"Must be at least {self.min_length} characters."
            if self.min_length == 1:
                message = "Must not be empty."
            raise ValidationError(CodedMessage(message, "too_short"))
        if self.max_length is not None and len(value) > self.max_length:
            message = f"Must be at most {self.max_length} characters."
            raise ValidationError(CodedMessage(message, "too_long"))

    def _validate(self, value: Any) -> None:
        """Call `check`; the validator in the constructor only documents the length."""
        self.check(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise wrong_type("a string")
        require_clean(value)
        return value


class PastedText(Text):
    """A text that people paste: surrounding blanks are removed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, str):
            value = without_blanks_around(value)
        return super()._deserialize(value, attr, data, **kwargs)


class NetworkAddress(PastedText):
    """An IP address in any notation, converted to its canonical form."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        address = canonical_address(text)
        if address is None:
            raise ValidationError(
                CodedMessage(
                    "Must be an IP address such as 192.0.2.7 or 2001:db8::7.", "invalid_address"
                )
            )
        return address


class NameText(Text):
    """A name or a description: not only blanks and invisible characters."""

    def check(self, value: str) -> None:
        """Raise ValidationError if the value breaks a rule of this field."""
        super().check(value)
        if value and is_blank(value):
            raise ValidationError(CodedMessage("Must contain visible characters.", "blank"))


class StrictBoolean(fields.Boolean):
    """true or false, but neither 1 nor "yes"."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise wrong_type("true or false")
        return value


class QueryBoolean(fields.Boolean):
    """true or false in a query string."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            raise wrong_type("true or false")
        return bool(value == "true")


class _Integer(fields.Integer):
    """An integer within bounds."""

    def __init__(self, *, minimum: int, maximum: int, **kwargs: Any) -> None:
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(validate=validate.Range(min=minimum, max=maximum), **kwargs)

    def require_within_bounds(self, number: int) -> int:
        """Return the number. Raises ValidationError outside of the bounds."""
        if not self.minimum <= number <= self.maximum:
            raise ValidationError(
                CodedMessage(
                    f"Must be a number from {self.minimum} to {self.maximum}.", "out_of_range"
                )
            )
        return number

    def _validate(self, value: Any) -> None:
        """Do nothing: `_deserialize` checks the bounds, which the validator only documents."""


class QueryInteger(_Integer):
    """An integer in a query string, within bounds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
            raise wrong_type("a whole number")
        return self.require_within_bounds(int(value))


class BoundedInteger(_Integer):
    """An integer in a body, within bounds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise wrong_type("a whole number")
        return self.require_within_bounds(value)


class Moment(fields.DateTime):
    """A time of RFC 3339 with a zone. Responses have it in UTC with Z."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str):
            raise wrong_type("a time such as 2026-01-31T12:00:00Z")
        try:
            if RFC3339.fullmatch(value):
                return datetime.fromisoformat(value.upper().replace(" ", "T")).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # The format is right, but the day or hour does not exist.
        hint = "" if "+" in value or not PLUS_LOST.search(value) else " In a URL, write + as %2B."
        raise ValidationError(
            CodedMessage(
                f"Must be a time such as 2026-01-31T12:00:00Z (RFC 3339).{hint}",
                "invalid_datetime",
            )
        )


class Choice(fields.String):
    """One value of an enum."""

    def __init__(self, options: type, **kwargs: Any) -> None:
        self.options = {str(option): option for option in options}  # type: ignore[attr-defined]
        super().__init__(validate=validate.OneOf(list(self.options)), **kwargs)

    def _validate(self, value: Any) -> None:
        """Do nothing: `_deserialize` checks the choices, which the validator only documents."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise wrong_type("a string")
        if value not in self.options:
            raise ValidationError(
                CodedMessage(f"Must be one of {', '.join(self.options)}.", "invalid_choice")
            )
        return self.options[value]
