"""CSV: the header, the separator, and one row for each line of cells."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from userapi.accounts.imports.columns import COLUMNS, REQUIRED
from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.rows import IGNORED, Row
from userapi.errors import FieldError, Invalid, invalid_field
from userapi.infrastructure.export import without_guard

DELIMITERS = (",", ";", "\t")
MAX_COLUMNS = 200
MAX_LINE_LENGTH = 64 * 1024
# An export has no such columns, so an apostrophe in them is not a guard against formulas.
UNGUARDED = frozenset({"password", "password_hash"})
_DELIMITER_LINE = re.compile(r'"?sep=([^\r\n])"?[\r\n]*', re.IGNORECASE)


def read_csv(
    lines: Iterable[str], *, on_header: Callable[[Sequence[str]], object]
) -> Iterator[Row]:
    """Yield the rows of a CSV file; `on_header` receives the names of its columns before them.

    Raises Invalid for an unusable header, and MalformedFile.
    """
    try:
        lines, delimiter, skipped = _skip_preamble(lines)
    except csv.Error as exc:
        raise MalformedFile(f"The file is not valid CSV: {exc} (header).") from exc
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise invalid_field("header", "The file has no header.", "required")
        columns = _checked_columns(header)
        on_header(columns)
        yield from _rows(reader, columns)
    except csv.Error as exc:
        line = skipped + reader.line_num
        raise MalformedFile(f"The file is not valid CSV: {exc} (line {line}).") from exc


def _skip_preamble(lines: Iterable[str]) -> tuple[Iterator[str], str, int]:
    """Return the lines from the header on, the delimiter, and how many lines were skipped.

    Excel writes `sep=;` as the first line where the delimiter is not the usual one.
    """
    remaining = iter(lines)
    stated = None
    for skipped, line in enumerate(remaining):
        if len(line) > MAX_LINE_LENGTH:
            message = f"The header is longer than {MAX_LINE_LENGTH} characters."
            raise invalid_field("header", message, "too_long")
        if stated is None and (match := _DELIMITER_LINE.fullmatch(line)):
            stated = match[1]
            if stated not in {*DELIMITERS, "|"}:
                message = "sep= must name a comma, a semicolon or a tab."
                raise invalid_field("header", message, "invalid_choice")
        elif line.strip(' \t\r\n,;"'):
            return chain([line], remaining), stated or _delimiter_of(line), skipped
    return iter(()), ",", 0


def _delimiter_of(header: str) -> str:
    """Return the delimiter that gives the most known columns; with equal numbers, most columns."""

    def columns(delimiter: str) -> tuple[int, int]:
        cells, *_ = csv.reader([header], delimiter=delimiter)
        return sum(_column(cell) is not None for cell in cells), len(cells)

    return max(DELIMITERS, key=columns)


def _compact(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


_COLUMN_OF = {_compact(name): name for name in (*COLUMNS, *sorted(IGNORED))}


def _column(name: str) -> str | None:
    """Return the column of a header cell: `E-Mail`, `First Name` and `FIRST_NAME` are accepted."""
    return _COLUMN_OF.get(_compact(name))


def _checked_columns(header: Sequence[str]) -> list[str]:
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS:
        message = f"The header has {len(names)} columns. At most {MAX_COLUMNS} are accepted."
        raise invalid_field("header", message, "too_long")
    columns = [_column(name) for name in names]
    errors = [*_column_errors(names, columns), *_missing_columns(columns)]
    if errors:
        raise Invalid(errors)
    return [column for column in columns if column is not None]


def _column_errors(names: Sequence[str], columns: Sequence[str | None]) -> Iterator[FieldError]:
    for number, (name, column) in enumerate(zip(names, columns, strict=True), start=1):
        if not name:
            message = f"Column {number} has no name."
            yield FieldError(f"header.{number}", message, "unknown_field")
        elif column is None:
            message = (
                f"Column {number}, {name[:100]!r}, is unknown. Known columns: {', '.join(COLUMNS)}."
            )
            yield FieldError(f"header.{name[:100]}", message, "unknown_field")
        elif column in columns[: number - 1]:
            first = columns.index(column) + 1
            message = f"Column {number} repeats column {first}, {column}."
            yield FieldError(f"header.{column}", message, "repeated")


def _missing_columns(columns: Sequence[str | None]) -> Iterator[FieldError]:
    for name in REQUIRED:
        if name not in columns:
            yield FieldError(f"header.{name}", f"The column {name} is missing.", "required")


def _rows(reader: Iterator[list[str]], columns: Sequence[str]) -> Iterator[Row]:
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
        # An empty cell is a missing value: CSV has no other notation for it.
        yield Row(
            number,
            {
                name: cell if name in UNGUARDED else without_guard(cell)
                for name, cell in zip(columns, cells, strict=True)
                if cell
            },
        )
