"""NDJSON: one JSON object on each line."""

from collections.abc import Iterable, Iterator

from userapi.accounts.imports.errors import MalformedFile
from userapi.accounts.imports.rows import Row
from userapi.errors import FieldError
from userapi.infrastructure import strict_json

MAX_LINE_LENGTH = 64 * 1024
ARRAY_MESSAGE = "A JSON array is not NDJSON: write each user as a JSON object on a separate line."


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
            values = strict_json.loads(text)
        except (strict_json.NotStrictJson, RecursionError) as exc:
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
