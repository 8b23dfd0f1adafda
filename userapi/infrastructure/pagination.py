"""Pages and cursors over any query, at a cost that does not grow with the table.

A page reaches 10 000 rows deep and a total counts to 10 000; a cursor walks the whole set by
keyset. A cursor is opaque and carries a MAC over itself, the sort and the filters: changed in any
way, or used with others, it is refused.
"""

import base64
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    bindparam,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union,
    union_all,
)

from userapi.clock import rfc3339
from userapi.errors import FieldError, Invalid, Malformed

DEEPEST_ROW = 10_000
COUNTED_ROWS = 10_000
MAXIMUM_CURSOR_LENGTH = 2048
REMEMBERED_SECONDS = 10.0
MAX_REMEMBERED = 1000
# Each weighs some 40 kB, and who asks chooses the sort.
MAX_KEPT = 100

Item = TypeVar("Item")


class InvalidCursor(Malformed):
    """The cursor was changed, or belongs to another sort or filter."""

    code = "invalid_cursor"
    title = "This cursor does not belong to this list."


class PageTooDeep(Invalid):
    """The page begins further down than pages reach."""

    code = "page_too_deep"
    title = "This page is too deep. Use next_cursor instead."

    def __init__(self) -> None:
        message = f"Reaches {DEEPEST_ROW} rows deep; use next_cursor beyond."
        super().__init__([FieldError("page", message, "page_too_deep")])


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column that a list can be sorted by.

    `stand_ins`, for a column that can be null, are a least and a greatest value: no value comes
    last in either direction, and an index over the column with a stand-in gives that order.
    `values`, for a column with few values, are all of them in order: each is read by itself.
    """

    column: ColumnElement[Any]
    stand_ins: tuple[Any, Any] | None = None
    values: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class _Ordering:
    """One part of an order: what is compared, and which way round."""

    expression: ColumnElement[Any]
    descending: bool
    values: Sequence[Any] = ()

    @property
    def clause(self) -> ColumnElement[Any]:
        return self.expression.desc() if self.descending else self.expression.asc()

    def bound(self, value: Any) -> BindParameter[Any]:
        return literal(value, self.expression.type)


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
        tie_breaker: Column[Any],
    ) -> None:
        self._key = hmac.digest(secret.encode(), f"cursor:{name}".encode(), "sha256")
        self._keys = keys
        self._default = default_sort
        self._tie_breaker = tie_breaker
        self._many_until: dict[bytes, float] = {}
        # A query, by its identity and the sort, and what was made of it to find a page.
        self._made: dict[tuple[int, str | None, bool, bool], tuple[Select[Any], Select[Any]]] = {}

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
        either: Sequence[ColumnElement[bool]] = (),
        one_range: bool = False,
    ) -> Page[Item]:
        """Return the wanted part of `query`, which has filters but no order.

        With `parameters`, its values, it is one that the caller keeps: so is what is made of it,
        which takes as long to make as to run.
        `counted` is a query with as many rows, for a list that is costly to count in its order.
        With `either`, rows that fit at least one of the conditions. Each is searched by itself, so
        that each can use an index of its own: under OR the planner reads and sorts all that fit.
        With `one_range` the filters are bounds of the first sort key and nothing else: what fits
        stands together in the order of the list, and is not read to be counted.
        Raises Invalid for an unknown sort field, PageTooDeep, InvalidCursor.
        """
        order = self._order(wanted.sort)
        context = _context(self._default if wanted.sort is None else wanted.sort, filters)
        offset, after = 0, None
        if wanted.cursor is not None:
            after = self._open(wanted.cursor, context, len(order))
        else:
            offset = (wanted.page - 1) * wanted.page_size
            if offset >= DEEPEST_ROW:
                raise PageTooDeep()
        limit = wanted.page_size + 1
        count = self._counting(connection, query, parameters, counted, either)
        many = self._is_known_to_be_many(filters)
        filtered = any(value is not None for value in filters.values())

        def find(*, few: bool = False) -> Sequence[Row[Any]]:
            if parameters is None or after is not None or either:
                made = self._rows(
                    query, order, after, limit=limit, offset=offset, few=few, either=either
                )
                return connection.execute(made, parameters or {}).all()
            made = self._kept_rows(query, order, wanted.sort, first=offset == 0, few=few)
            return connection.execute(made, {**parameters, "limit": limit, "offset": offset}).all()

        rows: Sequence[Row[Any]] = ()
        total = COUNTED_ROWS + 1
        searched = filtered and not either and not one_range
        if searched and not many:
            # A planner expects matches to be spread evenly over the order of the list. Where they
            # are not, following that order reads the whole table for them. So all are found and
            # counted once, and if they are few, the wanted ones are among them.
            rows = find(few=True)
            total = rows[0].matching_rows if rows else count()
        elif not many:
            total = count()
        if total > COUNTED_ROWS or not searched:
            rows = find()
        more = len(rows) == limit
        rows = rows[: wanted.page_size]
        if many and not more:
            total = count()
        if total > COUNTED_ROWS:
            self._remember_many(filters)
        return Page(
            items=[item(row) for row in rows],
            total=min(total, COUNTED_ROWS),
            total_is_exact=total <= COUNTED_ROWS,
            page=wanted.page,
            page_size=wanted.page_size,
            pages=-(-min(total, COUNTED_ROWS) // wanted.page_size),
            next_cursor=(self._seal(rows[-1], context, _key_names(query, order)) if more else None),
        )

    def forget(self) -> None:
        """Recount what was known to be many."""
        self._many_until.clear()

    def _kept_rows(
        self,
        query: Select[Any],
        order: Sequence[_Ordering],
        sort: str | None,
        *,
        first: bool,
        few: bool,
    ) -> Select[Any]:
        """Return the same as `_rows`; takes `limit` and, where something is skipped, `offset`."""
        key = (id(query), sort, first, few)
        of, made = self._made.get(key, (None, None))
        if made is None or of is not query:
            limit: BindParameter[int] = bindparam("limit", type_=Integer())
            offset = 0 if first else bindparam("offset", type_=Integer())
            made = self._rows(query, order, None, limit=limit, offset=offset, few=few)
            if len(self._made) >= MAX_KEPT:
                self._made.clear()
            self._made[key] = query, made
        return made

    def _rows(
        self,
        query: Select[Any],
        order: Sequence[_Ordering],
        after: Sequence[Any] | None,
        *,
        limit: Any,
        offset: Any,
        few: bool = False,
        either: Sequence[ColumnElement[bool]] = (),
    ) -> Select[Any]:
        """Return the query for the wanted rows, each with the values of its sort keys.

        Which rows they are is found first: what is computed for a row is computed for those that
        are shown, and not for all that an offset skips. Sort keys make the cursor. With `few` each
        row tells how many there are in all, and the rows are right if that is no more than counts.
        """
        key_names = _key_names(query, order)
        keys = [part.expression.label(f"sort_key_{i}") for i, part in enumerate(order)]
        keyed = query.with_only_columns(self._tie_breaker.label("row_id"), *keys)
        found: FromClause | None = None
        extra: list[ColumnElement[Any]] = []
        if few:
            # In the order of the list, where an index has no need to read the rows.
            first = keyed.order_by(*(part.clause for part in self._order(None)))
            first = first.limit(COUNTED_ROWS + 1)
            found = first.cte("matching").prefix_with("MATERIALIZED", dialect="postgresql")
            counted = select(func.count()).select_from(found).scalar_subquery()
            extra = [counted.label("matching_rows")]
        elif either:
            found, after = _of_either(keyed, order, either, after, limit=limit + offset), None
        elif order[0].values:
            found, after = _by_value(keyed, order, after, limit=limit + offset), None
        if found is not None:
            order = [
                _Ordering(found.c[key.name], part.descending)
                for key, part in zip(keys, order, strict=True)
            ]
            keyed = select(found)
        elif isinstance(offset, int) and offset == 0:
            # Nothing is skipped, so there is nothing to be spared.
            shown = query.add_columns(*(key for key in keys if key.name in key_names))
            if after is not None:
                shown = shown.where(_after(order, after))
            return shown.order_by(*(part.clause for part in order)).limit(limit)
        if after is not None:
            keyed = keyed.where(_after(order, after))
        ordered = keyed.order_by(*(part.clause for part in order))
        chosen = ordered.limit(limit).offset(offset).subquery()
        chosen_keys = [chosen.c[key.name] for key in keys]
        unseen = [key for key in chosen_keys if key.name in key_names]
        return (
            select(*query.selected_columns, *unseen, *extra)
            .join_from(self._tie_breaker.table, chosen, self._tie_breaker == chosen.c.row_id)
            .order_by(
                *(
                    key.desc() if part.descending else key.asc()
                    for key, part in zip(chosen_keys, order, strict=True)
                )
            )
        )

    def _counting(
        self,
        connection: Connection,
        query: Select[Any],
        parameters: Mapping[str, Any] | None,
        counted: Select[Any] | None,
        either: Sequence[ColumnElement[bool]],
    ) -> Callable[[], int]:
        def count() -> int:
            # In the order of the list, where an index has no need to read the rows.
            order = self._order(None)
            most = COUNTED_ROWS + 1
            if either:
                row_ids = query.with_only_columns(self._tie_breaker)
                rows: FromClause = _of_either(row_ids, order, either, None, limit=most)
            else:
                ordered = counted
                if ordered is None:
                    ordered = query.order_by(*(part.clause for part in order))
                ones: Select[Any] = ordered.with_only_columns(
                    literal_column("1"), maintain_column_froms=True
                )
                rows = ones.limit(most).subquery()
            limited = select(literal_column("1")).select_from(rows).limit(most).subquery()
            counting = select(func.count()).select_from(limited)
            return int(connection.execute(counting, parameters or {}).scalar_one())

        return count

    def _is_known_to_be_many(self, filters: Mapping[str, object]) -> bool:
        known_until = self._many_until.get(_context("", filters))
        return known_until is not None and time.monotonic() < known_until

    def _remember_many(self, filters: Mapping[str, object]) -> None:
        """Keep for a moment that a list is longer than is counted: walking it asks again and again.

        Only that is kept, and only believed of a page that has a next one.
        """
        if len(self._many_until) >= MAX_REMEMBERED:
            self._many_until.clear()
        self._many_until[_context("", filters)] = time.monotonic() + REMEMBERED_SECONDS

    def require_order(self, sort: str | None) -> None:
        """Raise Invalid for an order that there is not."""
        self._order(sort)

    def _order(self, sort: str | None) -> list[_Ordering]:
        order: list[_Ordering] = []
        seen: set[str] = set()
        for part in (self._default if sort is None else sort).split(","):
            name = part.removeprefix("-")
            if name not in self._keys or name in seen:
                names = ", ".join(sorted(self._keys))
                raise Invalid(
                    [
                        FieldError(
                            "sort", f"Must contain each of {names} at most once.", "invalid_sort"
                        )
                    ]
                )
            seen.add(name)
            order.append(_ordering(self._keys[name], descending=part.startswith("-")))
        order.append(_Ordering(self._tie_breaker, order[0].descending))
        return order

    def _seal(self, row: Row[Any], context: bytes, key_names: Sequence[str]) -> str:
        values = [_portable(getattr(row, name)) for name in key_names]
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


def _key_names(query: Select[Any], order: Sequence[_Ordering]) -> list[str]:
    """Return what the sort keys are called in a row; a shown column is not sent twice."""
    shown = query.selected_columns
    return [
        str(part.expression.key) if shown.contains_column(part.expression) else f"sort_key_{index}"
        for index, part in enumerate(order)
    ]


def _context(sort: str, filters: Mapping[str, object]) -> bytes:
    present = {name: str(value) for name, value in filters.items() if value is not None}
    return orjson.dumps([sort, present], option=orjson.OPT_SORT_KEYS)


def _ordering(key: SortKey, *, descending: bool) -> _Ordering:
    if key.stand_ins is None:
        return _Ordering(key.column, descending, key.values)
    least, greatest = key.stand_ins
    stand_in = literal(least if descending else greatest, key.column.type)
    return _Ordering(func.coalesce(key.column, stand_in, type_=key.column.type), descending)


def _of_either(
    keyed: Select[Any],
    order: Sequence[_Ordering],
    either: Sequence[ColumnElement[bool]],
    after: Sequence[Any] | None,
    *,
    limit: Any,
) -> Subquery:
    """Return the first rows that fit each condition, none of them twice."""
    part = keyed if after is None else keyed.where(_after(order, after))
    ordered = part.order_by(*(each.clause for each in order)).limit(limit)
    # Each in a subquery: SQLite takes no LIMIT in a part of a UNION.
    return union(*(select(ordered.where(c).subquery()) for c in either)).subquery()


def _by_value(
    keyed: Select[Any], order: Sequence[_Ordering], after: Sequence[Any] | None, *, limit: Any
) -> Subquery:
    """Return the first rows of each value of the first key, which together hold the wanted ones.

    Within one value the rest of the order has an index to follow; over all values, where half the
    table can share one, it would have to be sorted.
    """
    first, rest = order[0], order[1:]
    values = list(reversed(first.values)) if first.descending else list(first.values)
    branches = []
    for value in values[values.index(after[0]) if after else 0 :]:
        branch = keyed.where(first.expression == value)
        if after and value == after[0]:
            branch = branch.where(_after(rest, after[1:]))
        ordered = branch.order_by(*(part.clause for part in rest)).limit(limit)
        branches.append(select(ordered.subquery()))
    return union_all(*branches).subquery()


def _after(order: Sequence[_Ordering], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition for the rows behind the one with these sort values."""
    if len({part.descending for part in order}) == 1:
        # One comparison of whole rows is where an index begins to read.
        here = tuple_(*(part.expression for part in order))
        there = tuple_(*(part.bound(value) for part, value in zip(order, values, strict=True)))
        return here < there if order[0].descending else here > there
    # (a > x) or (a = x and (b < y or …)), where directions differ. No index reads an "or": the
    # bound on the first key says where to begin.
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
