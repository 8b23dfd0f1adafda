"""Rows of a file of users: their columns, the checks of one row, and the user that it describes.

Nothing here queries the database. An error of one row does not affect other rows.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from userapi.accounts import exports
from userapi.accounts.addresses import EmailAddress, parse_email, parse_username
from userapi.accounts.imports.columns import COLUMNS, REFUSAL_COLUMNS, REQUIRED, SECRETS
from userapi.accounts.models import UserStatus
from userapi.actor import Actor
from userapi.characters import is_blank
from userapi.errors import FieldError, Invalid, faults_of
from userapi.passwords.legacy_hashes import check_legacy_hash
from userapi.permissions import Permission
from userapi.roles.models import MAX_ROLES

# Columns of an export that an import does not set: ignored, and listed in the reply.
IGNORED = frozenset((*exports.COLUMNS, *REFUSAL_COLUMNS)) - set(COLUMNS)
MAX_SHOWN_LENGTH = 320
# A line can hold ten thousand unknown fields.
MAX_ERRORS_PER_ROW = 50
MAX_LENGTHS = {
    "username": 256,
    "email": 320,
    "password": 1024,
    "password_hash": 1024,
    "first_name": 100,
    "last_name": 100,
    "status": 16,
}
NAMES = ("first_name", "last_name")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its values, or the errors that prevented reading them."""

    number: int
    values: Mapping[str, Any]
    errors: tuple[FieldError, ...] = ()

    @property
    def has_password(self) -> bool:
        """Return whether importing this row hashes a password."""
        return isinstance(self.values.get("password"), str)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedUser:
    """The user that a valid row describes."""

    row: int
    username: str
    email: EmailAddress
    password: str | None
    password_hash: str | None
    first_name: str | None
    last_name: str | None
    roles: tuple[str, ...]
    status: UserStatus | None


def require_step_up_for(rows: Iterable[Row], actor: Actor) -> None:
    """Raise InsufficientUserAuthentication if a row has roles and assigning needs a step-up."""
    if actor.withheld is not None and any(row.values.get("roles") for row in rows):
        actor.require_step_up(Permission.ROLES_ASSIGN)


def checked_form(row: Row) -> Row:
    """Return the row, or one with all errors of its form, whose values are only for display.

    The values are strings and lists of strings that can be stored.
    """
    errors = row.errors or tuple(islice(_form_errors(row.values), MAX_ERRORS_PER_ROW))
    return Row(row.number, content_of(row.values), errors) if errors else row


def content_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a row as short printable texts, without passwords and hashes."""
    return {
        name: _printable(values[name])
        for name in COLUMNS
        if name not in SECRETS and values.get(name) is not None
    }


def _printable(value: Any) -> str:
    if isinstance(value, list):
        value = ";".join(str(item) for item in value[:MAX_ROLES])
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in {"Cc", "Cs"}
        else character
        for character in str(value)[:MAX_SHOWN_LENGTH]
    )


def checked_user(row: Row) -> ImportedUser:
    """Return the user that the row describes. Raises Invalid with every error."""
    checked = checked_form(row)
    if checked.errors:
        raise Invalid(checked.errors)
    values = {name: value for name, value in row.values.items() if value is not None}
    username, email = _parse_names(values)
    if "password_hash" in values:
        check_legacy_hash(values["password_hash"])
    return ImportedUser(
        row=row.number,
        username=username,
        email=email,
        password=values.get("password"),
        password_hash=values.get("password_hash"),
        first_name=values.get("first_name"),
        last_name=values.get("last_name"),
        roles=_role_names(values.get("roles", ())),
        status=UserStatus(values["status"]) if "status" in values else None,
    )


def _form_errors(values: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in values:
        if name not in COLUMNS:
            yield FieldError(name, "Unknown field.", "unknown_field")
    for name in REQUIRED:
        if values.get(name) is None:
            yield FieldError(name, "Missing data for required field.", "required")
    for name, max_length in MAX_LENGTHS.items():
        value = values.get(name)
        if value is not None:
            yield from _text_errors(name, value, max_length)
    if values.get("password") is not None and values.get("password_hash") is not None:
        message = "Must have either a password or its hash, not both."
        yield FieldError("password_hash", message, "password_and_hash")
    status = values.get("status")
    if isinstance(status, str) and status not in list(UserStatus):
        message = f"Must be one of {', '.join(UserStatus)}."
        yield FieldError("status", message, "invalid_choice")
    yield from _role_errors(values.get("roles"))


def _text_errors(name: str, value: Any, max_length: int) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(name, "Must be a string.", "wrong_type")
    elif len(value) > max_length:
        yield FieldError(name, f"Must be at most {max_length} characters.", "too_long")
    elif any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        message = "Must not contain control characters or lone surrogates."
        yield FieldError(name, message, "invalid_characters")
    elif name in NAMES and value and is_blank(value):
        yield FieldError(name, "Must contain visible characters.", "blank")


def _role_errors(value: Any) -> Iterator[FieldError]:
    if value is None or isinstance(value, str):
        names: Sequence[Any] = _role_names(value or "")
    elif isinstance(value, list):
        names = value
    else:
        message = "Must be a list of names, or a string of names separated by ; or ,."
        yield FieldError("roles", message, "wrong_type")
        return
    if len(names) > MAX_ROLES:
        yield FieldError("roles", f"Must have at most {MAX_ROLES} roles.", "too_many_roles")
        return
    for index, name in enumerate(names):
        yield from _text_errors(f"roles.{index}", name, 64)


def _role_names(value: str | Sequence[str]) -> tuple[str, ...]:
    # Where semicolons separate the cells of a file, its authors separate roles by commas.
    names = re.split("[;,]", value) if isinstance(value, str) else value
    return tuple(sorted({name.strip() for name in names if name.strip()}))


def _parse_names(values: Mapping[str, Any]) -> tuple[str, EmailAddress]:
    """Return user name and address. Raises Invalid with the errors of both."""
    try:
        username = parse_username(values["username"])
    except Invalid as exc:
        raise Invalid([*exc.errors, *faults_of(lambda: parse_email(values["email"]))]) from exc
    return username, parse_email(values["email"])
