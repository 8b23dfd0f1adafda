"""One page of a list."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from userapi_client.model_base import document, each, maybe, member, optional, text

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some items, and the cursor of the next ones."""

    items: tuple[T, ...]
    next_cursor: str | None
    """None on the last page."""
    total: int | None
    """None for a list without a count."""
    total_is_exact: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def read_page(value: Any, read: Callable[[Any], T]) -> Page[T]:
    """Read a page, or a list that has no pages. Raises Unavailable."""
    raw = document(value)
    total = raw.get("total")
    return Page(
        items=member(raw, "items", each(read)),
        next_cursor=optional(raw, "next_cursor", maybe(text)),
        total=total if isinstance(total, int) else None,
        total_is_exact=raw.get("total_is_exact") is True,
        raw=raw,
    )
