"""Exports as NDJSON and as CSV that is safe in spreadsheets: no text is read as a formula.

An apostrophe prevents formulas. `without_guard` removes it, so that an export can be imported
unchanged.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from userapi.clock import rfc3339

# With the full-width and small forms, which Japanese and Chinese editions of Excel accept.
FORMULA_STARTS = "=+-@＝＋－＠﹦﹢﹣﹫"
# A spreadsheet with another list separator than the comma splits a line elsewhere, also within
# quotes that do not begin a cell there. So every position where a cell could begin is guarded.
_FORMULA = f"[{re.escape(FORMULA_STARTS)}]"
_SKIPPED = r"""(?:[^\S\t\r\n]|["'])*+"""
_AT_START = re.compile(rf"'*[\t\r\n]|{_SKIPPED}{_FORMULA}")
_WITHIN = re.compile(rf"[;|\t\r\n](?={_SKIPPED}{_FORMULA})")
_GUARDED_WITHIN = re.compile(rf"([;|\t\r\n])'(?={_SKIPPED}{_FORMULA})")
_WITHIN_JSON = re.compile(rf"([;|]{_SKIPPED})({_FORMULA})")


# The approximate size of a piece of a document.
PIECE_BYTES = 64 * 1024


class ExportFormat(StrEnum):
    """The formats of an export."""

    CSV = "csv"
    NDJSON = "ndjson"


MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.NDJSON: "application/x-ndjson",
}


def export_pieces(
    chunks: Iterable[Iterable[Mapping[str, Any]]], *, columns: Sequence[str], form: ExportFormat
) -> Iterator[bytes]:
    """Yield an export piece by piece, one chunk of rows at a time."""
    if form is ExportFormat.CSV:
        yield csv_line(columns).encode()
    for chunk in chunks:
        if form is ExportFormat.CSV:
            yield "".join(csv_line(row[name] for name in columns) for row in chunk).encode()
        else:
            yield b"".join(_json_line({name: row[name] for name in columns}) for row in chunk)


def with_byte_order_mark(pieces: Iterable[bytes], form: ExportFormat) -> Iterator[bytes]:
    """Yield a byte order mark before CSV, by which Excel recognises UTF-8."""
    if form is ExportFormat.CSV:
        yield codecs.BOM_UTF8
    yield from pieces


def csv_line(values: Iterable[object]) -> str:
    """Return one line of CSV (RFC 4180) in which no cell is a formula."""
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def with_guard(text: str) -> str:
    """Return the text with an apostrophe wherever a spreadsheet could read a formula."""
    guarded = _WITHIN.sub(r"\g<0>'", text)
    return f"'{guarded}" if guarded != text or _AT_START.match(text) else text


def without_guard(text: str) -> str:
    """Return the text from which `with_guard` made this one; any other text unchanged."""
    bare = text[1:]
    if text.startswith("'") and (_AT_START.match(bare) or _WITHIN.search(bare)):
        return _GUARDED_WITHIN.sub(r"\1", bare)
    return text


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, dict | list | bool):
        # Strings in JSON can contain escape sequences for any character, so it stays valid JSON.
        return _WITHIN_JSON.sub(
            lambda found: f"{found[1]}\\u{ord(found[2]):04x}", orjson.dumps(value).decode()
        )
    return with_guard(str(value))


def _json_line(row: Mapping[str, Any]) -> bytes:
    shown = {n: rfc3339(v) if isinstance(v, datetime) else v for n, v in row.items()}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def document_pieces(
    values: Mapping[str, object], lists: Mapping[str, Iterable[object]]
) -> Iterator[bytes]:
    """Yield one JSON object piece by piece: first the members of `values`, then those of `lists`.

    The lists are read as they are sent. If reading one fails, the object is not closed, so that
    an incomplete document is not valid.
    """
    opening = "{"
    for name, value in values.items():
        yield f"{opening}{_json(name)}:{_json(value)}".encode()
        opening = ","
    for name, items in lists.items():
        yield f"{opening}{_json(name)}:[".encode()
        yield from _list_pieces(items)
        yield b"]"
        opening = ","
    yield b"}"


def _list_pieces(items: Iterable[object]) -> Iterator[bytes]:
    piece = bytearray()
    for number, item in enumerate(items):
        piece += b"," if number else b""
        piece += orjson.dumps(item, option=orjson.OPT_UTC_Z)
        if len(piece) > PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
