"""Reads the members of JSON objects into the models of `models.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, TypeVar

from userapi_client.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An object of the service. `raw` contains members that this release does not know."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)
    etag: str | None = field(default=None, repr=False, compare=False)
    """The version, for `if_match`; only if a single object was read."""


def document(value: Any) -> Mapping[str, Any]:
    """Return a JSON object that cannot be changed. Raises Unavailable for anything else."""
    if not isinstance(value, Mapping):
        raise _unexpected("an object")
    return MappingProxyType(dict(value))


def member(raw: Mapping[str, Any], name: str, convert: Callable[[Any], T]) -> T:
    """Return a member that is always present. Raises Unavailable if it is not."""
    if name not in raw:
        raise _unexpected(name)
    return convert(raw[name])


def optional(raw: Mapping[str, Any], name: str, convert: Callable[[Any], T]) -> T | None:
    """Return a member that may be left out."""
    return None if raw.get(name) is None else convert(raw[name])


def text(value: Any) -> str:
    """Return a text."""
    return _of(str, value)


def number(value: Any) -> int:
    """Return a whole number."""
    return _of(int, value)


def truth(value: Any) -> bool:
    """Return true or false."""
    return _of(bool, value)


def moment(value: Any) -> datetime:
    """Return a time with its zone."""
    try:
        return datetime.fromisoformat(_of(str, value))
    except ValueError as exc:
        raise _unexpected("a time") from exc


def day(value: Any) -> date:
    """Return a date."""
    try:
        return date.fromisoformat(_of(str, value))
    except ValueError as exc:
        raise _unexpected("a date") from exc


def anything(value: Any) -> Any:
    """Return a value as it is."""
    return value


def maybe(convert: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Return a reader that also accepts null."""
    return lambda value: None if value is None else convert(value)


def each(convert: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Return a reader of lists."""

    def read_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise _unexpected("a list")
        return tuple(convert(item) for item in value)

    return read_list


def by_name(convert: Callable[[Any], T]) -> Callable[[Any], Mapping[str, T]]:
    """Return a reader of objects whose values are of one type."""
    return lambda value: MappingProxyType(
        {name: convert(item) for name, item in document(value).items()}
    )


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _unexpected(kind.__name__)
    return value


def _unexpected(what: str) -> Unavailable:
    return Unavailable(detail=f"The response is invalid: {what} is missing.")
