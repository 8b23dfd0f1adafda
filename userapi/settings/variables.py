"""The environment variables that set the fields, and what the documents show of each."""

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from userapi.settings.fields import Fields


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: the field that it sets, and what the documents say about it."""

    field: str
    parse: Callable[[str], Any]
    default: str
    secret: bool

    @property
    def name(self) -> str:
        """Return the name of the variable."""
        return self.field.upper()


@cache
def variables() -> tuple[Variable, ...]:
    """Return every variable, in the order of `.env.example`."""
    return tuple(map(_variable, fields(Fields)))


def _variable(declared: Field[Any]) -> Variable:
    return Variable(
        field=declared.name,
        parse=declared.metadata["parse"],
        default=_shown(declared.default),
        secret=declared.metadata["secret"],
    )


def _shown(default: object) -> str:
    """Return a default as the documents show it; empty if there is none."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Path):
        return default.name
    return str(default)
