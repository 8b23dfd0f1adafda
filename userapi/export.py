"""Exports as NDJSON and as CSV that a spreadsheet may open: no text is ever taken for a formula."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from userapi.clock import rfc3339

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    """The forms that an export comes in."""

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


def csv_line(values: Iterable[object]) -> str:
    """Return one line of CSV (RFC 4180); what a spreadsheet would calculate gets a quote before."""
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(value) for value in values])
    return line.getvalue()


def _harmless(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return rfc3339(value)
    text = orjson.dumps(value).decode() if isinstance(value, dict | list | bool) else str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _json_line(row: Mapping[str, Any]) -> bytes:
    shown = {n: rfc3339(v) if isinstance(v, datetime) else v for n, v in row.items()}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)
