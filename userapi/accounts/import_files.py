"""Reading files of users: NDJSON and CSV become rows, and a row becomes a user or its faults.

Nothing here looks at the database. A fault of one row stays with that row; only what makes the rest
of the file unreadable is raised.
"""

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import Any, BinaryIO, NoReturn, TextIO

from userapi.accounts import exports
from userapi.accounts.addresses import EmailAddress, parse_email, parse_username
from userapi.accounts.models import UserStatus
from userapi.characters import is_blank
from userapi.errors import FieldError, Invalid, Malformed, invalid_field
from userapi.infrastructure.export import without_guard
from userapi.passwords.legacy_hashes import check_legacy_hash
from userapi.roles.models import MAX_ROLES

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
# What an export has and an import does not set. Such columns are ignored and named in the answer.
IGNORED = frozenset(exports.COLUMNS) - set(COLUMNS)
# An export has none of these, so no apostrophe in them is a guard.
UNGUARDED = frozenset({"password", "password_hash"})
MAX_COLUMNS = 200
# A line can hold ten thousand unknown fields: the first faults tell enough.
MAX_FAULTS = 50
DELIMITERS = (",", ";", "\t")
ENCODINGS = {
    "utf-8": "utf-8-sig",
    "utf8": "utf-8-sig",
    "us-ascii": "utf-8-sig",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
}
LONGEST = {
    "username": 256,
    "email": 320,
    "password": 1024,
    "password_hash": 1024,
    "first_name": 100,
    "last_name": 100,
    "status": 16,
}
NO_ARRAY = "A JSON array is not NDJSON: write each user as a JSON object on a line of its own."
NAMES = ("first_name", "last_name")
MAX_LINE = 64 * 1024
# So much of a file tells what it is.
HEAD_BYTES = 4096
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive. In Excel, save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. In Excel, save it as CSV",
    b"\x1f\x8b": "compressed with gzip. Decompress it first",
    b"BZh": "compressed with bzip2. Decompress it first",
    b"\xfd7zXZ": "compressed with xz. Decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard. Decompress it first",
    b"%PDF": "a PDF document. Save it as CSV",
}
_STATED_DELIMITER = re.compile(r'"?sep=([^\r\n])"?[\r\n]*', re.IGNORECASE)


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
        """Return whether a hash has to be made for this row."""
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


def open_text(file: BinaryIO, file_format: ImportFormat, *, charset: str | None = None) -> TextIO:
    """Return the text of a file that can be read twice. A byte order mark outweighs `charset`.

    `charset` is one of ENCODINGS; UTF-8 if left out. Raises MalformedFile for what is no text.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    for signature, kind in _OTHER_KINDS.items():
        if head.startswith(signature):
            raise MalformedFile(f"The file is {kind}, and import that file.")
    marked = [name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)]
    encoding = marked[0] if marked else ENCODINGS[charset or "utf-8"]
    has_order = encoding in {"utf-16-le", "utf-16-be"}
    if not marked and not has_order and (encoding == "utf-16" or b"\0" in head):
        raise MalformedFile(
            "The file is UTF-16 without a byte order mark, or not text. Save it as UTF-8."
        )
    newline = "" if file_format is ImportFormat.CSV else "\n"
    return io.TextIOWrapper(file, encoding=encoding, newline=newline)


class UserFile:
    """The rows of a file of users, read once."""

    def __init__(self, lines: Iterable[str], file_format: ImportFormat) -> None:
        self._lines = lines
        self._format = file_format
        self._ignored: dict[str, None] = {}

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """Return which columns of an export were met so far; their values are not used."""
        return tuple(self._ignored)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises Invalid for a bad header, and MalformedFile."""
        try:
            rows = self._csv() if self._format is ImportFormat.CSV else _read_ndjson(self._lines)
            for row in rows:
                yield self._without_ignored(row)
        except UnicodeError as exc:
            raise MalformedFile(_undecodable(exc)) from exc

    def _without_ignored(self, row: Row) -> Row:
        found = [name for name in row.values if name in IGNORED]
        if not found:
            return row
        self._ignored.update(dict.fromkeys(found))
        kept = {name: value for name, value in row.values.items() if name not in IGNORED}
        return Row(row.number, kept, row.faults)

    def _csv(self) -> Iterator[Row]:
        try:
            lines, delimiter, passed = _after_preamble(self._lines)
        except csv.Error as exc:
            raise MalformedFile(f"The file is not valid CSV: {exc} (header).") from exc
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise invalid_field("header", "The file has no header.", "required")
            columns = _checked_header(header)
            self._ignored.update(dict.fromkeys(name for name in columns if name in IGNORED))
            yield from _csv_rows(reader, columns)
        except csv.Error as exc:
            line = passed + reader.line_num
            raise MalformedFile(f"The file is not valid CSV: {exc} (line {line}).") from exc


def _undecodable(error: UnicodeError) -> str:
    name = getattr(error, "encoding", "")
    if "utf-16" in name or "utf-32" in name:
        return "The file is not valid UTF-16: it ends in the middle of a character or is damaged."
    if "utf-8" not in name:
        return f"The file is not in the encoding {name}, which was stated for it."
    return (
        "The file is not UTF-8. Save it as UTF-8 (in Excel: CSV UTF-8), or state its encoding: "
        "windows-1252 or iso-8859-1."
    )


def checked_form(row: Row) -> Row:
    """Return the row with every fault of its form, and then without its values.

    So the values of a row without faults are texts, and lists of texts, that can be stored.
    """
    faults = row.faults or tuple(islice(_form_faults(row.values), MAX_FAULTS))
    return Row(row.number, {}, faults) if faults else row


def checked_user(row: Row) -> ImportedUser:
    """Return what the row describes. Raises Invalid with every fault."""
    faults = list(row.faults) or list(islice(_form_faults(row.values), MAX_FAULTS))
    if faults:
        raise Invalid(faults)
    values = {name: value for name, value in row.values.items() if value is not None}
    username, email = _identity(values)
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


def _read_ndjson(lines: Iterable[str]) -> Iterator[Row]:
    number = 0
    for line in lines:
        text = line.strip(" \t\r\n")
        if not text:
            continue
        number += 1
        if len(text) > MAX_LINE:
            yield Row(number, {}, (FieldError("row", "The line is too long.", "too_long"),))
            continue
        try:
            values = json.loads(
                text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
            )
        except (ValueError, RecursionError) as exc:
            if number == 1 and text.startswith("["):
                raise MalformedFile(NO_ARRAY) from exc
            yield Row(number, {}, (FieldError("row", "Is not valid JSON.", "malformed_json"),))
            continue
        if isinstance(values, dict):
            yield Row(number, values)
        elif isinstance(values, list):
            yield Row(number, {}, (FieldError("row", NO_ARRAY, "wrong_type"),))
        else:
            yield Row(number, {}, (FieldError("row", "Must be a JSON object.", "wrong_type"),))


def _after_preamble(lines: Iterable[str]) -> tuple[Iterator[str], str, int]:
    """Return the lines from the header on, what separates cells, and how many lines came before.

    Excel writes `sep=;` as a first line where it matters. Otherwise the header tells.
    """
    waiting = iter(lines)
    stated = None
    for passed, line in enumerate(waiting):
        if len(line) > MAX_LINE:
            message = f"The header is longer than {MAX_LINE} characters."
            raise invalid_field("header", message, "too_long")
        if stated is None and (match := _STATED_DELIMITER.fullmatch(line)):
            stated = match[1]
            if stated not in {*DELIMITERS, "|"}:
                message = "sep= must name a comma, a semicolon or a tab."
                raise invalid_field("header", message, "invalid_choice")
        elif line.strip(' \t\r\n,;"'):
            return chain([line], waiting), stated or _delimiter_of(line), passed
    return iter(()), ",", 0


def _delimiter_of(header: str) -> str:
    """Return the delimiter that makes the most known columns of the header, or the most columns."""

    def columns(delimiter: str) -> tuple[int, int]:
        cells, *_ = csv.reader([header], delimiter=delimiter)
        return sum(_column(cell) is not None for cell in cells), len(cells)

    return max(DELIMITERS, key=columns)


def _compact(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


_COLUMN_OF = {_compact(name): name for name in (*COLUMNS, *sorted(IGNORED))}


def _column(name: str) -> str | None:
    """Return which column a header names: `E-Mail`, `First Name` and `FIRST_NAME` are fine."""
    return _COLUMN_OF.get(_compact(name))


def _csv_rows(reader: Iterator[list[str]], columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(columns):
            message = f"The row has {len(cells)} cells, but the header has {len(columns)} columns."
            yield Row(number, {}, (FieldError("row", message, "wrong_number_of_cells"),))
            continue
        # An empty cell is a value that was left out: CSV has no other way to say so.
        yield Row(
            number,
            {
                name: cell if name in UNGUARDED else without_guard(cell)
                for name, cell in zip(columns, cells, strict=True)
                if cell
            },
        )


def _checked_header(header: Sequence[str]) -> list[str]:
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS:
        message = f"The header has {len(names)} columns. At most {MAX_COLUMNS} are accepted."
        raise invalid_field("header", message, "too_long")
    columns = [_column(name) for name in names]
    faults = []
    for number, (name, column) in enumerate(zip(names, columns, strict=True), start=1):
        if not name:
            message = f"Column {number} has no name."
            faults.append(FieldError(f"header.{number}", message, "unknown_field"))
        elif column is None:
            message = (
                f"Column {number}, {name[:100]!r}, is unknown. Known columns: {', '.join(COLUMNS)}."
            )
            faults.append(FieldError(f"header.{name[:100]}", message, "unknown_field"))
        elif column in columns[: number - 1]:
            first = columns.index(column) + 1
            message = f"Column {number} repeats column {first}, {column}."
            faults.append(FieldError(f"header.{column}", message, "repeated"))
    faults += [
        FieldError(f"header.{name}", f"The column {name} is missing.", "required")
        for name in REQUIRED
        if name not in columns
    ]
    if faults:
        raise Invalid(faults)
    return [column for column in columns if column is not None]


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
        message = "Must have either a password or its hash, not both."
        yield FieldError("password_hash", message, "password_and_hash")
    status = values.get("status")
    if isinstance(status, str) and status not in list(UserStatus):
        message = f"Must be one of {', '.join(UserStatus)}."
        yield FieldError("status", message, "invalid_choice")
    yield from _role_faults(values.get("roles"))


def _text_faults(name: str, value: Any, longest: int) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(name, "Must be a string.", "wrong_type")
    elif len(value) > longest:
        yield FieldError(name, f"Must be at most {longest} characters.", "too_long")
    elif any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        message = "Must not contain control characters or lone surrogates."
        yield FieldError(name, message, "invalid_characters")
    elif name in NAMES and value and is_blank(value):
        yield FieldError(name, "Must contain visible characters.", "blank")


def _role_faults(value: Any) -> Iterator[FieldError]:
    if value is None or isinstance(value, str):
        names: Sequence[Any] = _role_names(value or "")
    elif isinstance(value, list):
        names = value
    else:
        message = "Must be a list of names, or a text with ; or , between names."
        yield FieldError("roles", message, "wrong_type")
        return
    if len(names) > MAX_ROLES:
        yield FieldError("roles", f"Must have at most {MAX_ROLES} roles.", "too_many_roles")
        return
    for index, name in enumerate(names):
        yield from _text_faults(f"roles.{index}", name, 64)


def _role_names(value: str | Sequence[str]) -> tuple[str, ...]:
    # In a file whose cells are separated by semicolons, people separate roles by commas.
    names = re.split("[;,]", value) if isinstance(value, str) else value
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
        raise ValueError("a member is repeated")
    return found
