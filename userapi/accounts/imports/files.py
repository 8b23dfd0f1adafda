"""Files of users: from bytes to text, and from text to rows.

Only errors that make the rest of the file unreadable are raised; others stay with their row.
"""

import codecs
import io
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import BinaryIO, TextIO

from userapi.accounts.imports.csv_rows import read_csv
from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.ndjson_rows import read_ndjson
from userapi.accounts.imports.rows import IGNORED, Row

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
# The first bytes of a file, which identify its format and encoding.
HEAD_BYTES = 4096
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive. In Excel, save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. In Excel, save it as CSV",
    b"\x1f\x8b": "compressed with gzip. Decompress it first",
    b"BZh": "compressed with bzip2. Decompress it first",
    b"\xfd7zXZ": "compressed with xz. Decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard. Decompress it first",
    b"%PDF": "a PDF document. Save it as CSV",
}


class ImportFormat(StrEnum):
    """The formats of a file of users."""

    CSV = "csv"
    NDJSON = "ndjson"


def open_text(file: BinaryIO, file_format: ImportFormat, *, charset: str | None = None) -> TextIO:
    """Return the text of a seekable file. A byte order mark overrides `charset`.

    `charset` is one of ENCODINGS, by default UTF-8. Raises MalformedFile for other formats.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    for signature, description in _OTHER_FORMATS.items():
        if head.startswith(signature):
            raise MalformedFile(f"The file is {description}, and import that file.")
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
    """The rows of a file of users, which can be read once."""

    def __init__(self, lines: Iterable[str], file_format: ImportFormat) -> None:
        self._lines = lines
        self._format = file_format
        self._ignored: dict[str, None] = {}

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """Return the columns found so far whose values an import does not use."""
        return tuple(self._ignored)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises Invalid for an unusable header, and MalformedFile."""
        try:
            rows = (
                read_csv(self._lines, on_header=self._collect_ignored)
                if self._format is ImportFormat.CSV
                else read_ndjson(self._lines)
            )
            for row in rows:
                yield self._without_ignored(row)
        except UnicodeError as exc:
            raise MalformedFile(_decoding_message(exc)) from exc

    def _collect_ignored(self, columns: Iterable[str]) -> None:
        self._ignored.update((name, None) for name in columns if name in IGNORED)

    def _without_ignored(self, row: Row) -> Row:
        if IGNORED.isdisjoint(row.values):
            return row
        self._collect_ignored(row.values)
        kept = {name: value for name, value in row.values.items() if name not in IGNORED}
        return Row(row.number, kept, row.errors)


def _decoding_message(error: UnicodeError) -> str:
    encoding = getattr(error, "encoding", "")
    if "utf-16" in encoding or "utf-32" in encoding:
        return "The file is not valid UTF-16: it ends in the middle of a character or is damaged."
    if "utf-8" not in encoding:
        return f"The file is not in the encoding {encoding}, which was stated for it."
    return (
        "The file is not UTF-8. Save it as UTF-8 (in Excel: CSV UTF-8), or state its encoding: "
        "windows-1252 or iso-8859-1."
    )
