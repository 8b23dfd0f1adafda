"""JSON that every reader understands alike (RFC 8259).

Python's parser also accepts NaN, infinities and duplicate members. Two readers of such a text can
see different values, so the service rejects it wherever it reads JSON from outside.
"""

import json
import math
from typing import Any, NoReturn


class NotStrictJson(ValueError):
    """The text is not JSON, or readers can understand it differently."""


def loads(text: str) -> Any:
    """Return the value of a JSON text. Raises NotStrictJson, RecursionError."""
    try:
        return json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=_finite,
            object_pairs_hook=_without_duplicates,
        )
    except NotStrictJson:
        raise
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise NotStrictJson(f"Invalid JSON at {where}.") from exc
    except ValueError as exc:  # An integer of too many digits.
        raise NotStrictJson("A number is out of range.") from exc


def _reject_constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not a JSON value.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotStrictJson("A number is out of range.")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrictJson("An object has two members of the same name.")
    return found
