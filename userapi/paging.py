"""Pages and cursors over any query, at a cost that does not grow with the table.

A page reaches 10 000 rows deep and a total counts to 10 000; a cursor walks the whole set by
keyset. A cursor is opaque and carries a MAC over itself, the sort and the filters: changed in any
way, or used with others, it is refused.
"""

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    union,
)

from userapi.clock import rfc3339
from userapi.errors import FieldError, Invalid, Malformed

DEEPEST_ROW = 10_000
COUNTED_ROWS = 10_000
MAXIMUM_CURSOR_LENGTH = 2048

Item = TypeVar("Item")


class InvalidCursor(Malformed):
    """The cursor was changed, or belongs to another sort or filter."""

    code = "invalid_cursor"
    title = "This cursor does not belong to this list."


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column that a list can be sorted by."""

    column: ColumnElement[Any]
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list is wanted, and in which order."""

    page: int = 1
    page_size: int = 20
    cursor: str | None = None
    sort: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A part of a list."""

    items: list[Item]
    total: int
    total_is_exact: bool
    page: int
    page_size: int
    pages: int
    next_cursor: str | None


class Paginator:
    """Pages one kind of list: its sortable columns, default order and tie-breaker."""

    def __init__(
        self,
        *,
        secret: str,
        name: str,
        keys: Mapping[str, SortKey],
        default_sort: str,
        tie_breaker: ColumnElement[Any],
    ) -> None:
        self._key = hmac.digest(secret.encode(), f"cursor:{name}".encode(), "sha256")
        self._keys = keys
        self._default = default_sort
        self._tie_breaker = SortKey(tie_breaker)

    def page(
        self,
        connection: Connection,
        query: Select[Any],
        wanted: PageRequest,
        *,
        filters: Mapping[str, object],
        item: Callable[[Row[Any]], Item],
        either: Sequence[ColumnElement[bool]] = (),
    ) -> Page[Item]:
        """Return the wanted part of `query`, which has filters but no order.

        With `either`, rows that fit at least one of the conditions. Each is searched by itself, so
        that each can use an index of its own: under OR the planner reads and sorts all that fit.
        Raises Invalid for an unknown sort field or a page that is too deep, InvalidCursor.
        """
        order = self._order(wanted.sort)
        context = _context(wanted.sort or self._default, filters)
        ordering = _ordering(order)
        offset = 0
        part = query
        if wanted.cursor is not None:
            part = query.where(_after(order, self._open(wanted.cursor, context, len(order))))
        else:
            offset = (wanted.page - 1) * wanted.page_size
            if offset >= DEEPEST_ROW:
                raise Invalid(
                    [
                        FieldError(
                            "page",
                            f"Reaches {DEEPEST_ROW} rows deep; use next_cursor beyond.",
                            "page_too_deep",
                        )
                    ],
                )
        size = wanted.page_size + 1
        # The values of the sort keys ride along with each row: the last row's make the cursor.
        keys = [key.column.label(f"sort_key_{index}") for index, (key, _) in enumerate(order)]
        if either:
            ids = self._either(part.order_by(*ordering), order, either, reach=offset + size)
            part = query.where(self._tie_breaker.column.in_(ids.limit(size).offset(offset)))
            keyed = part.order_by(*ordering).add_columns(*keys)
        else:
            keyed = part.order_by(*ordering).add_columns(*keys).limit(size).offset(offset)
        rows = connection.execute(keyed).all()
        more = len(rows) > wanted.page_size
        rows = rows[: wanted.page_size]
        total = self._total(connection, query, either)
        return Page(
            items=[item(row) for row in rows],
            total=min(total, COUNTED_ROWS),
            total_is_exact=total <= COUNTED_ROWS,
            page=wanted.page,
            page_size=wanted.page_size,
            pages=-(-min(total, COUNTED_ROWS) // wanted.page_size),
            next_cursor=self._seal(rows[-1], context, len(order)) if more else None,
        )

    def _either(
        self,
        ordered: Select[Any],
        order: Sequence[tuple[SortKey, bool]],
        conditions: Sequence[ColumnElement[bool]],
        *,
        reach: int,
    ) -> Select[Any]:
        """Return, in order, the ids of rows that fit one of the conditions: the first of each."""
        keys = [key.column.label(f"key_{index}") for index, (key, _) in enumerate(order)]
        # Each in a subquery: SQLite takes no LIMIT in a part of a UNION.
        parts = [
            select(
                ordered.where(condition)
                .with_only_columns(*keys, maintain_column_froms=True)
                .limit(reach)
                .subquery()
            )
            for condition in conditions
        ]
        found = union(*parts).subquery()
        columns = list(found.c)
        return select(columns[-1]).order_by(
            *_ordering(
                [
                    (SortKey(column, key.nullable), descending)
                    for column, (key, descending) in zip(columns, order, strict=True)
                ]
            )
        )

    def _total(
        self,
        connection: Connection,
        query: Select[Any],
        either: Sequence[ColumnElement[bool]],
    ) -> int:
        if either:
            # In order, so that an index is read and not the table until enough rows are found.
            order = self._order(None)
            ordered = query.order_by(*_ordering(order))
            limited = self._either(ordered, order, either, reach=COUNTED_ROWS + 1)
            counted = limited.order_by(None).limit(COUNTED_ROWS + 1).subquery()
        else:
            counted = (
                query.with_only_columns(literal_column("1"), maintain_column_froms=True)
                .limit(COUNTED_ROWS + 1)
                .subquery()
            )
        return int(connection.execute(select(func.count()).select_from(counted)).scalar_one())

    def _order(self, sort: str | None) -> list[tuple[SortKey, bool]]:
        order: list[tuple[SortKey, bool]] = []
        seen: set[str] = set()
        for part in (sort or self._default).split(","):
            name = part.removeprefix("-")
            if name not in self._keys or name in seen:
                names = ", ".join(sorted(self._keys))
                raise Invalid(
                    [FieldError("sort", f"Takes each of {names} at most once.", "invalid_sort")]
                )
            seen.add(name)
            order.append((self._keys[name], part.startswith("-")))
        order.append((self._tie_breaker, order[0][1]))
        return order

    def _seal(self, row: Row[Any], context: bytes, length: int) -> str:
        values = [_portable(getattr(row, f"sort_key_{index}")) for index in range(length)]
        body = orjson.dumps(values)
        mac = hmac.digest(self._key, context + b"\0" + body, "sha256")[:16]
        return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()

    def _open(self, cursor: str, context: bytes, length: int) -> list[Any]:
        if len(cursor) > MAXIMUM_CURSOR_LENGTH or not cursor.isascii():
            raise InvalidCursor()
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError as exc:
            raise InvalidCursor() from exc
        mac, body = raw[:16], raw[16:]
        expected = hmac.digest(self._key, context + b"\0" + body, "sha256")[:16]
        # Another text that decodes to the same bytes is a changed cursor, too.
        again = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        if not hmac.compare_digest(mac, expected) or again != cursor:
            raise InvalidCursor()
        values = orjson.loads(body)
        if len(values) != length:
            raise InvalidCursor()
        return [_native(value) for value in values]


def _context(sort: str, filters: Mapping[str, object]) -> bytes:
    present = {name: str(value) for name, value in filters.items() if value is not None}
    return orjson.dumps([sort, present], option=orjson.OPT_SORT_KEYS)


def _ordering(order: Sequence[tuple[SortKey, bool]]) -> list[ColumnElement[Any]]:
    return [_order_expression(key, descending) for key, descending in order]


def _order_expression(key: SortKey, descending: bool) -> ColumnElement[Any]:
    column = key.column.desc() if descending else key.column.asc()
    # Without a value comes last either way, on every database.
    return column.nulls_last() if key.nullable else column


def _after(order: Sequence[tuple[SortKey, bool]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition for the rows behind the one with these sort values.

    Written as (a > x) or (a = x and (b > y or …)), so that directions can differ.
    """
    condition: ColumnElement[bool] | None = None
    for (key, descending), value in reversed(list(zip(order, values, strict=True))):
        beyond = _beyond(key, descending, value)
        if condition is None:
            condition = beyond
        else:
            same = key.column.is_(None) if value is None else key.column == value
            condition = or_(beyond, and_(same, condition))
    if condition is None:
        raise InvalidCursor()
    first, descending = order[0]
    if first.nullable:
        return condition
    # Says nothing new, but is a range of an index; the OR alone would read from the list's start.
    return and_(first.column <= values[0] if descending else first.column >= values[0], condition)


def _beyond(key: SortKey, descending: bool, value: Any) -> ColumnElement[bool]:
    if value is None:
        return key.column.is_(None) & key.column.isnot(None)  # Nothing comes after the nulls.
    beyond = key.column < value if descending else key.column > value
    return or_(beyond, key.column.is_(None)) if key.nullable else beyond


def _portable(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"t": rfc3339(value)}
    if isinstance(value, UUID):
        return {"u": str(value)}
    return value


def _native(value: Any) -> Any:
    if isinstance(value, dict):
        if "t" in value:
            return datetime.fromisoformat(value["t"])
        return UUID(value["u"])
    return value
