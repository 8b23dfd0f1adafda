"""The statements that read the rows of a page and count the rows of a list."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Select,
    func,
    literal_column,
    select,
)

from userapi.infrastructure.pagination.order import (
    Order,
    Ordering,
    rows_after,
    rows_by_value,
    rows_of_either,
)

# Totals are exact up to this number of rows.
COUNTED_ROWS = 10_000

Conditions = Sequence[ColumnElement[bool]]


def page_query(
    query: Select[Any],
    order: Order,
    after: Sequence[Any] | None,
    *,
    tie_breaker: Column[Any],
    limit: Any,
    offset: Any,
    counted_in: Order | None = None,
    either: Conditions = (),
) -> Select[Any]:
    """Return the query for the rows of a page, each with the values of its sort keys.

    The ids of the rows are found first, so that computed columns are computed for the rows of the
    page and not for those that the offset skips. The sort keys are for the cursor. With
    `counted_in`, an order with an index, all rows of the list are found and counted, and each row
    has their number as `matching_rows`; the rows are right if it is at most COUNTED_ROWS.
    """
    names = key_names(query, order)
    keys = [part.expression.label(f"sort_key_{i}") for i, part in enumerate(order)]
    keyed = query.with_only_columns(tie_breaker.label("row_id"), *keys)
    found: FromClause | None = None
    extra: list[ColumnElement[Any]] = []
    if counted_in is not None:
        first = keyed.order_by(*(part.clause for part in counted_in)).limit(COUNTED_ROWS + 1)
        found = first.cte("matching").prefix_with("MATERIALIZED", dialect="postgresql")
        count = select(func.count()).select_from(found).scalar_subquery()
        extra = [count.label("matching_rows")]
    elif either:
        found, after = rows_of_either(keyed, order, either, after, limit=limit + offset), None
    elif order[0].values:
        found, after = rows_by_value(keyed, order, after, limit=limit + offset), None
    if found is not None:
        order = [
            Ordering(found.c[key.name], part.descending)
            for key, part in zip(keys, order, strict=True)
        ]
        keyed = select(found)
    elif isinstance(offset, int) and offset == 0:
        # No row is skipped, so no computation is saved.
        shown = query.add_columns(*(key for key in keys if key.name in names))
        if after is not None:
            shown = shown.where(rows_after(order, after))
        return shown.order_by(*(part.clause for part in order)).limit(limit)
    if after is not None:
        keyed = keyed.where(rows_after(order, after))
    ordered = keyed.order_by(*(part.clause for part in order))
    chosen = ordered.limit(limit).offset(offset).subquery()
    chosen_keys = [chosen.c[key.name] for key in keys]
    unseen = [key for key in chosen_keys if key.name in names]
    return (
        select(*query.selected_columns, *unseen, *extra)
        .join_from(tie_breaker.table, chosen, tie_breaker == chosen.c.row_id)
        .order_by(
            *(
                key.desc() if part.descending else key.asc()
                for key, part in zip(chosen_keys, order, strict=True)
            )
        )
    )


def key_names(query: Select[Any], order: Order) -> list[str]:
    """Return the names of the sort keys in a row; a column of the query is not read twice."""
    shown = query.selected_columns
    return [
        str(part.expression.key) if shown.contains_column(part.expression) else f"sort_key_{index}"
        for index, part in enumerate(order)
    ]


def count_query(
    query: Select[Any],
    order: Order,
    *,
    tie_breaker: Column[Any],
    ordered: Select[Any] | None = None,
    either: Conditions = (),
) -> Select[int]:
    """Return the query for the number of rows, at most COUNTED_ROWS + 1.

    The rows are read in an order for which an index-only scan is possible: `order`, or that of
    `ordered`, a query with the same number of rows.
    """
    limit = COUNTED_ROWS + 1
    if either:
        row_ids = query.with_only_columns(tie_breaker)
        rows: FromClause = rows_of_either(row_ids, order, either, None, limit=limit)
    else:
        if ordered is None:
            ordered = query.order_by(*(part.clause for part in order))
        ones: Select[Any] = ordered.with_only_columns(
            literal_column("1"), maintain_column_froms=True
        )
        rows = ones.limit(limit).subquery()
    limited = select(literal_column("1")).select_from(rows).limit(limit).subquery()
    return select(func.count()).select_from(limited)
