"""NDJSON: one JSON object on each line."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.rows import Row
from userapi.errors import FieldError

MAX_LINE_LENGTH = 64 * 1024
ARRAY_MESSAGE = "A JSON array is not NDJSON: write each user as a JSON object on a line of its own."


def read_ndjson(lines: Iterable[str]) -> Iterator[Row]:
    """Yield a row for each line that is not empty. Raises MalformedFile for a JSON array."""
    number = 0
    for line in lines:
        text = line.strip(" \t\r\n")
        if not text:
            continue
        number += 1
        if len(text) > MAX_LINE_LENGTH:
            yield _unreadable(number, "The line is too long.", "too_long")
            continue
        try:
            values = json.loads(
                text, parse_constant=_reject_constant, object_pairs_hook=_without_duplicates
            )
        except (ValueError, RecursionError) as exc:
            if number == 1 and text.startswith("["):
                raise MalformedFile(ARRAY_MESSAGE) from exc
            yield _unreadable(number, "Is not valid JSON.", "malformed_json")
            continue
        if isinstance(values, dict):
            yield Row(number, values)
        elif isinstance(values, list):
            yield _unreadable(number, ARRAY_MESSAGE, "wrong_type")
        else:
            yield _unreadable(number, "Must be a JSON object.", "wrong_type")


def _unreadable(number: int, message: str, code: str) -> Row:
    return Row(number, {}, (FieldError("row", message, code),))


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is repeated")
    return found
