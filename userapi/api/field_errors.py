"""Validation errors of marshmallow as field errors with codes."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from marshmallow import Schema

from userapi.errors import FieldError, Invalid, faults_of

_CODES_BY_MESSAGE = {
    "Missing data for required field.": "required",
    "Unknown field.": "unknown_field",
    "Field may not be null.": "null_not_allowed",
    "Invalid input type.": "wrong_type",
}


class CodedMessage(str):
    """The message of a validator together with its code."""

    code: str

    def __new__(cls, message: str, code: str) -> "CodedMessage":
        """Return the message as text with a code."""
        coded = super().__new__(cls, message)
        coded.code = code
        return coded


@runtime_checkable
class ValidatesFurther(Protocol):
    """A schema with rules beyond the form of its fields."""

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for fields that have the right form and break another rule."""
        ...


def all_errors(schema: Schema, messages: Any, valid: Any) -> Invalid:
    """Return every error of a request.

    `messages` are marshmallow's errors of form. The schema adds errors about well-formed fields.
    """
    errors = list(_flatten(messages, ""))
    faulty = {error.field.split(".")[0] for error in errors}
    if isinstance(schema, ValidatesFurther) and isinstance(valid, dict):
        well_formed = {name: value for name, value in valid.items() if name not in faulty}
        errors += faults_of(lambda: schema.require_valid(well_formed))
    return Invalid(errors)


def _flatten(messages: Any, path: str) -> Iterator[FieldError]:
    if isinstance(messages, dict):
        for key, value in messages.items():
            part = "" if key == "_schema" else str(key)
            yield from _flatten(value, ".".join(filter(None, (path, part))))
    elif isinstance(messages, list):
        for message in messages:
            yield from _flatten(message, path)
    else:
        code = getattr(messages, "code", None) or _CODES_BY_MESSAGE.get(str(messages), "invalid")
        yield FieldError(path or "body", str(messages), code)
