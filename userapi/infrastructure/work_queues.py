"""Work queues in tables: several workers claim rows without waiting for each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, select, update

from userapi.infrastructure.database import require_transaction


def claim_next(
    table: Table,
    *conditions: ColumnElement[bool],
    order_by: Sequence[ColumnElement[Any]],
    values: Mapping[str, Any],
) -> Row[Any] | None:
    """Claim the first row that meets the conditions: set `values`, in the open transaction.

    Skips rows that other transactions have locked. Returns the row from before the change, or None.
    """
    session = require_transaction()
    row = session.execute(
        select(table)
        .where(*conditions)
        .order_by(*order_by)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is not None:
        session.execute(update(table).where(table.c.id == row.id).values(**values))
    return row
