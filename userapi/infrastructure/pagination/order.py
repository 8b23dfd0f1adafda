"""The order of a list, and the SQL for its rows behind a given one (keyset pagination)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Select,
    Subquery,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    union_all,
)

from userapi.errors import FieldError, Invalid


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column by which a list can be sorted.

    `stand_ins`, for a nullable column, are a least and a greatest value: NULL sorts last in either
    direction, and an index on the column with a stand-in has that order. `values`, for a column
    with few values, are all of them in order: the rows of each value are read separately.
    """

    column: ColumnElement[Any]
    stand_ins: tuple[Any, Any] | None = None
    values: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Ordering:
    """One part of an order: an expression and a direction."""

    expression: ColumnElement[Any]
    descending: bool
    values: Sequence[Any] = ()

    @property
    def clause(self) -> ColumnElement[Any]:
        """Return the part for ORDER BY."""
        return self.expression.desc() if self.descending else self.expression.asc()

    def bound(self, value: Any) -> BindParameter[Any]:
        """Return a value with the type of the expression."""
        return literal(value, self.expression.type)


Order = Sequence[Ordering]


class SortOrders:
    """The orders that a list can have."""

    def __init__(
        self, keys: Mapping[str, SortKey], *, default: str, tie_breaker: Column[Any]
    ) -> None:
        self._keys = keys
        self._tie_breaker = tie_breaker
        self.default = default

    def parse(self, sort: str | None) -> list[Ordering]:
        """Return the order for a text such as "name,-created_at". Raises Invalid."""
        order: list[Ordering] = []
        seen: set[str] = set()
        for part in (self.default if sort is None else sort).split(","):
            name = part.removeprefix("-")
            if name not in self._keys or name in seen:
                names = ", ".join(sorted(self._keys))
                message = f"Must contain each of {names} at most once."
                raise Invalid([FieldError("sort", message, "invalid_sort")])
            seen.add(name)
            order.append(_ordering(self._keys[name], descending=part.startswith("-")))
        order.append(Ordering(self._tie_breaker, order[0].descending))
        return order


def _ordering(key: SortKey, *, descending: bool) -> Ordering:
    if key.stand_ins is None:
        return Ordering(key.column, descending, key.values)
    least, greatest = key.stand_ins
    stand_in = literal(least if descending else greatest, key.column.type)
    return Ordering(func.coalesce(key.column, stand_in, type_=key.column.type), descending)


def reversed_order(order: Order) -> list[Ordering]:
    """Return the order that reads the same rows from the end."""
    return [replace(part, descending=not part.descending) for part in order]


def rows_after(order: Order, values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition for the rows behind the one with these sort values."""
    if len({part.descending for part in order}) == 1:
        # An index can begin to read at a comparison of whole rows.
        here = tuple_(*(part.expression for part in order))
        there = tuple_(*(part.bound(value) for part, value in zip(order, values, strict=True)))
        return here < there if order[0].descending else here > there
    # (a > x) or (a = x and (b < y or …)) for mixed directions. No index can be read by an OR, so a
    # bound on the first key defines where to begin.
    condition: ColumnElement[bool] = false()
    for part, value in reversed(list(zip(order, values, strict=True))):
        limit = part.bound(value)
        beyond = part.expression < limit if part.descending else part.expression > limit
        condition = or_(beyond, and_(part.expression == limit, condition))
    first = order[0]
    start = first.bound(values[0])
    return and_(
        first.expression <= start if first.descending else first.expression >= start, condition
    )


def rows_of_either(
    keyed: Select[Any],
    order: Order,
    conditions: Sequence[ColumnElement[bool]],
    after: Sequence[Any] | None,
    *,
    limit: Any,
) -> Subquery:
    """Return the first rows that fulfil each condition, without duplicates."""
    part = keyed if after is None else keyed.where(rows_after(order, after))
    ordered = part.order_by(*(each.clause for each in order)).limit(limit)
    # Each in a subquery: SQLite allows no LIMIT in a part of a UNION.
    return union(*(select(ordered.where(c).subquery()) for c in conditions)).subquery()


def rows_by_value(
    keyed: Select[Any], order: Order, after: Sequence[Any] | None, *, limit: Any
) -> Subquery:
    """Return the first rows of each value of the first key; they include the requested ones.

    Within one value an index has the order of the other keys. Over all values, where half the
    table can share one, the rows would have to be sorted.
    """
    first, rest = order[0], order[1:]
    values = list(reversed(first.values)) if first.descending else list(first.values)
    branches = []
    for value in values[values.index(after[0]) if after else 0 :]:
        branch = keyed.where(first.expression == value)
        if after and value == after[0]:
            branch = branch.where(rows_after(rest, after[1:]))
        ordered = branch.order_by(*(part.clause for part in rest)).limit(limit)
        branches.append(select(ordered.subquery()))
    return union_all(*branches).subquery()
