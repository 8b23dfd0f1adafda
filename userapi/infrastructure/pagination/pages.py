"""Pages of one kind of list, by number or by cursor.

Numbered pages reach 10 000 rows deep, and totals are exact up to 10 000. A cursor walks the whole
list by keyset.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from cachetools import LRUCache, TTLCache
from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
)

from userapi.errors import FieldError, Invalid
from userapi.infrastructure.pagination.cursors import Cursors
from userapi.infrastructure.pagination.order import Order, SortKey, SortOrders, reversed_order
from userapi.infrastructure.pagination.queries import (
    COUNTED_ROWS,
    Conditions,
    count_query,
    key_names,
    page_query,
)

MAX_DEPTH = 10_000
# How long, and of how many lists, it is cached that they have more rows than are counted.
LONG_LIST_SECONDS = 10.0
MAX_LONG_LISTS = 1000
# A statement takes some 40 kB of memory, and clients choose the sort.
MAX_STATEMENTS = 100

Item = TypeVar("Item")


class PageTooDeep(Invalid):
    """The page begins further down than numbered pages reach."""

    code = "page_too_deep"
    title = "This page is too deep. Use next_cursor instead."

    def __init__(self) -> None:
        message = f"Reaches {MAX_DEPTH} rows deep; use next_cursor beyond."
        super().__init__([FieldError("page", message, "page_too_deep")])


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """The part of a list that a client requests, and its order.

    `backwards` requests the rows before the cursor; without a cursor, the last rows.
    """

    page: int = 1
    page_size: int = 20
    cursor: str | None = None
    sort: str | None = None
    backwards: bool = False


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
    # Not in the JSON of the API, which walks lists in one direction.
    _previous_cursor: str | None = None

    @property
    def previous_cursor(self) -> str | None:
        """Return the cursor for the rows before this page; None for the first page."""
        return self._previous_cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The requested part of a list, and how to read it."""

    query: Select[Any]
    order: Order
    sort: str | None
    backwards: bool
    after: Sequence[Any] | None
    limit: int
    offset: int
    parameters: Mapping[str, Any] | None
    counted: Select[Any] | None
    either: Conditions


class Paginator:
    """Pages of one kind of list: its sortable columns, default order and tie-breaker."""

    def __init__(
        self,
        *,
        secret: str,
        name: str,
        keys: Mapping[str, SortKey],
        default_sort: str,
        tie_breaker: Column[Any],
    ) -> None:
        self._cursors = Cursors(secret, name)
        self._orders = SortOrders(keys, default=default_sort, tie_breaker=tie_breaker)
        self._tie_breaker = tie_breaker
        self._lock = threading.Lock()
        self._long_lists: TTLCache[bytes, bool] = TTLCache(MAX_LONG_LISTS, LONG_LIST_SECONDS)
        self._statements: LRUCache[tuple[object, ...], Select[Any]] = LRUCache(MAX_STATEMENTS)

    def page(
        self,
        connection: Connection,
        query: Select[Any],
        wanted: PageRequest,
        *,
        filters: Mapping[str, object],
        item: Callable[[Row[Any]], Item],
        parameters: Mapping[str, Any] | None = None,
        counted: Select[Any] | None = None,
        either: Conditions = (),
        one_range: bool = False,
    ) -> Page[Item]:
        """Return the requested part of `query`, which has filters but no order.

        With `parameters`, its values, `query` is one that the caller builds once: the statements
        of its pages are cached, because building one takes as long as executing it.
        `counted` is a query with as many rows, for a list that is expensive to count in its order.
        With `either`, rows that fulfil at least one of the conditions. Each condition is searched
        separately by its own index: under OR the planner would read and sort all matching rows.
        With `one_range` the filters only limit the first sort key: the matching rows are adjacent
        in the order of the list, so they are not read to be counted.
        Raises Invalid for an unknown sort field, PageTooDeep, InvalidCursor.
        """
        order = self._orders.parse(wanted.sort)
        context = _context(self._orders.default if wanted.sort is None else wanted.sort, filters)
        offset, after = 0, None
        if wanted.cursor is not None:
            after = self._cursors.read(wanted.cursor, context, len(order))
        else:
            offset = (wanted.page - 1) * wanted.page_size
            if offset >= MAX_DEPTH:
                raise PageTooDeep()
        limit = wanted.page_size + 1
        part = _Part(
            query=query,
            order=reversed_order(order) if wanted.backwards else order,
            sort=wanted.sort,
            backwards=wanted.backwards,
            after=after,
            limit=limit,
            offset=offset,
            parameters=parameters,
            counted=counted,
            either=either,
        )
        is_long = self._is_long(filters)
        filtered = any(value is not None for value in filters.values())
        rows: Sequence[Row[Any]] = ()
        total = COUNTED_ROWS + 1
        searched = filtered and not either and not one_range
        if searched and not is_long:
            # The planner expects matching rows to be spread evenly over the order of the list. If
            # they are not, reading in this order reads the whole table. So all are found and
            # counted once, and if they are few, those of the page are among them.
            rows = self._find(connection, part, all_counted=True)
            total = rows[0].matching_rows if rows else self._count(connection, part)
        elif not is_long:
            total = self._count(connection, part)
        if total > COUNTED_ROWS or not searched:
            rows = self._find(connection, part)
        more = len(rows) == limit
        rows = rows[: wanted.page_size]
        if is_long and not more:
            total = self._count(connection, part)
        if total > COUNTED_ROWS:
            self._cache_long(filters)
        if wanted.backwards:
            rows = rows[::-1]
            is_preceded, is_followed = more, after is not None
        else:
            is_preceded, is_followed = after is not None or offset > 0, more
        return Page(
            items=[item(row) for row in rows],
            total=min(total, COUNTED_ROWS),
            total_is_exact=total <= COUNTED_ROWS,
            page=wanted.page,
            page_size=wanted.page_size,
            pages=-(-min(total, COUNTED_ROWS) // wanted.page_size),
            next_cursor=self._cursor(query, order, rows, -1, context) if is_followed else None,
            _previous_cursor=self._cursor(query, order, rows, 0, context) if is_preceded else None,
        )

    def require_order(self, sort: str | None) -> None:
        """Raise Invalid for an unknown sort field."""
        self._orders.parse(sort)

    def drop_cached_totals(self) -> None:
        """Count lists again that were found to be long."""
        with self._lock:
            self._long_lists.clear()

    def _count(self, connection: Connection, part: _Part) -> int:
        counting = count_query(
            part.query,
            self._orders.parse(None),
            tie_breaker=self._tie_breaker,
            ordered=part.counted,
            either=part.either,
        )
        return int(connection.execute(counting, part.parameters or {}).scalar_one())

    def _find(
        self, connection: Connection, part: _Part, *, all_counted: bool = False
    ) -> Sequence[Row[Any]]:
        if part.parameters is not None and part.after is None and not part.either:
            statement = self._cached_statement(part, all_counted=all_counted)
            values = {**part.parameters, "limit": part.limit, "offset": part.offset}
            return connection.execute(statement, values).all()
        statement = self._statement(
            part, limit=part.limit, offset=part.offset, all_counted=all_counted
        )
        return connection.execute(statement, part.parameters or {}).all()

    def _statement(self, part: _Part, *, limit: Any, offset: Any, all_counted: bool) -> Select[Any]:
        return page_query(
            part.query,
            part.order,
            part.after,
            tie_breaker=self._tie_breaker,
            limit=limit,
            offset=offset,
            counted_in=self._orders.parse(None) if all_counted else None,
            either=part.either,
        )

    def _cached_statement(self, part: _Part, *, all_counted: bool) -> Select[Any]:
        """Return a statement with the parameters `limit` and, unless it is 0, `offset`."""
        key = (part.query, part.sort, part.backwards, part.offset == 0, all_counted)
        with self._lock:
            statement = self._statements.get(key)
        if statement is None:
            limit: BindParameter[int] = bindparam("limit", type_=Integer())
            offset = 0 if part.offset == 0 else bindparam("offset", type_=Integer())
            statement = self._statement(part, limit=limit, offset=offset, all_counted=all_counted)
            with self._lock:
                self._statements[key] = statement
        return statement

    def _cursor(
        self, query: Select[Any], order: Order, rows: Sequence[Row[Any]], index: int, context: bytes
    ) -> str | None:
        """Return the cursor of the first or last row; None without rows."""
        if not rows:
            return None
        values = [getattr(rows[index], name) for name in key_names(query, order)]
        return self._cursors.write(values, context)

    def _is_long(self, filters: Mapping[str, object]) -> bool:
        with self._lock:
            return _context("", filters) in self._long_lists

    def _cache_long(self, filters: Mapping[str, object]) -> None:
        """Cache that a list has more rows than are counted: walking it counts it repeatedly.

        Only this is cached, and it is used only for a page that has a next one.
        """
        with self._lock:
            self._long_lists[_context("", filters)] = True


def _context(sort: str, filters: Mapping[str, object]) -> bytes:
    present = {name: str(value) for name, value in filters.items() if value is not None}
    return orjson.dumps([sort, present], option=orjson.OPT_SORT_KEYS)
