"""Reading files of users: NDJSON and CSV become rows, and a row becomes a user or its faults.

Nothing here looks at the database. A fault of one row stays with that row; only what makes the rest
of the file unreadable is raised.
"""

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from userapi.accounts.addresses import EmailAddress, parse_email, parse_username
from userapi.accounts.models import UserStatus
from userapi.errors import FieldError, Invalid, Malformed, invalid_field
from userapi.passwords.foreign_hashes import check_foreign_hash

COLUMNS = (
    "username",
    "email",
    "password",
    "password_hash",
    "first_name",
    "last_name",
    "roles",
    "status",
)
REQUIRED = ("username", "email")
LONGEST = {
    "username": 256,
    "email": 320,
    "password": 1024,
    "password_hash": 1024,
    "first_name": 100,
    "last_name": 100,
    "status": 16,
}
LONGEST_LINE = 64 * 1024
MOST_ROLES = 50


class ImportFormat(StrEnum):
    """How a file of users is written."""

    CSV = "csv"
    NDJSON = "ndjson"


class MalformedFile(Malformed):
    """The file cannot be read as a whole."""

    code = "malformed_file"
    title = "The file cannot be read."


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its values, or why it has none."""

    number: int
    values: Mapping[str, Any]
    faults: tuple[FieldError, ...] = ()

    @property
    def has_password(self) -> bool:
        """Tell whether a hash has to be made for this row."""
        return isinstance(self.values.get("password"), str)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedUser:
    """A row whose form is right."""

    row: int
    username: str
    email: EmailAddress
    password: str | None
    password_hash: str | None
    first_name: str | None
    last_name: str | None
    roles: tuple[str, ...]
    status: UserStatus | None


def read_rows(lines: Iterable[str], file_format: ImportFormat) -> Iterator[Row]:
    """Return the rows of a file. Raises Invalid for a bad header, and MalformedFile."""
    try:
        if file_format is ImportFormat.CSV:
            yield from _read_csv(lines)
        else:
            yield from _read_ndjson(lines)
    except UnicodeDecodeError as exc:
        raise MalformedFile("The file is not UTF-8.") from exc


def checked_user(row: Row) -> ImportedUser:
    """Return what the row describes. Raises Invalid with every fault."""
    faults = list(row.faults) or list(_form_faults(row.values))
    if faults:
        raise Invalid(faults)
    values = {name: value for name, value in row.values.items() if value is not None}
    username, email = _identity(values)
    if "password_hash" in values:
        check_foreign_hash(values["password_hash"])
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


def _read_ndjson(lines: Iterable[str]) -> Iterator[Row]:
    number = 0
    for line in lines:
        text = line.strip(" \t\r\n")
        if not text:
            continue
        number += 1
        if len(text) > LONGEST_LINE:
            yield Row(number, {}, (FieldError("row", "The line is too long.", "too_long"),))
            continue
        try:
            values = json.loads(
                text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
            )
        except (ValueError, RecursionError):
            yield Row(number, {}, (FieldError("row", "Is no JSON.", "malformed_json"),))
            continue
        if isinstance(values, dict):
            yield Row(number, values)
        else:
            yield Row(number, {}, (FieldError("row", "Takes an object.", "wrong_type"),))


def _read_csv(lines: Iterable[str]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise invalid_field("header", "The file has no header.", "required")
        columns = _checked_header(header)
        number = 0
        for cells in reader:
            if not cells:
                continue
            number += 1
            if len(cells) != len(columns):
                message = f"Has {len(cells)} cells and not {len(columns)}."
                yield Row(number, {}, (FieldError("row", message, "wrong_number_of_cells"),))
                continue
            # An empty cell is a value that was left out: CSV knows no other way to say so.
            yield Row(number, {n: cell for n, cell in zip(columns, cells, strict=True) if cell})
    except csv.Error as exc:
        raise MalformedFile(f"The file is no CSV: {exc} (line {reader.line_num}).") from exc


def _checked_header(header: Sequence[str]) -> list[str]:
    columns = [name.strip() for name in header]
    faults = [
        FieldError(f"header.{name or index}", "There is no such column.", "unknown_field")
        for index, name in enumerate(columns)
        if name not in COLUMNS
    ]
    faults += [
        FieldError(f"header.{name}", "Stands more than once.", "repeated")
        for name in COLUMNS
        if columns.count(name) > 1
    ]
    faults += [
        FieldError(f"header.{name}", "This column is missing.", "required")
        for name in REQUIRED
        if name not in columns
    ]
    if faults:
        raise Invalid(faults)
    return columns


def _form_faults(values: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in values:
        if name not in COLUMNS:
            yield FieldError(name, "Unknown field.", "unknown_field")
    for name in REQUIRED:
        if values.get(name) is None:
            yield FieldError(name, "Missing data for required field.", "required")
    for name, longest in LONGEST.items():
        value = values.get(name)
        if value is not None:
            yield from _text_faults(name, value, longest)
    if values.get("password") is not None and values.get("password_hash") is not None:
        message = "Takes a password or its hash, and not both."
        yield FieldError("password_hash", message, "password_and_hash")
    status = values.get("status")
    if isinstance(status, str) and status not in list(UserStatus):
        message = f"Takes one of {', '.join(UserStatus)}."
        yield FieldError("status", message, "invalid_choice")
    yield from _role_faults(values.get("roles"))


def _text_faults(name: str, value: Any, longest: int) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(name, "Takes a text.", "wrong_type")
    elif len(value) > longest:
        yield FieldError(name, f"Takes at most {longest} characters.", "too_long")
    elif any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        message = "Must not hold control characters or lone surrogates."
        yield FieldError(name, message, "invalid_characters")


def _role_faults(value: Any) -> Iterator[FieldError]:
    if value is None or isinstance(value, str):
        names: Sequence[Any] = _role_names(value or "")
    elif isinstance(value, list):
        names = value
    else:
        yield FieldError("roles", "Takes a list of names, or names with ; between.", "wrong_type")
        return
    if len(names) > MOST_ROLES:
        yield FieldError("roles", f"Takes at most {MOST_ROLES} roles.", "too_long")
        return
    for index, name in enumerate(names):
        yield from _text_faults(f"roles.{index}", name, 64)


def _role_names(value: str | Sequence[str]) -> tuple[str, ...]:
    names = value.split(";") if isinstance(value, str) else value
    return tuple(sorted({name.strip() for name in names if name.strip()}))


def _identity(values: Mapping[str, Any]) -> tuple[str, EmailAddress]:
    """Return name and address. Raises Invalid with what is wrong with both."""
    faults: list[FieldError] = []
    username, email = "", None
    try:
        username = parse_username(values["username"])
    except Invalid as exc:
        faults += exc.errors
    try:
        email = parse_email(values["email"])
    except Invalid as exc:
        faults += exc.errors
    if faults or email is None:
        raise Invalid(faults)
    return username, email


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found
