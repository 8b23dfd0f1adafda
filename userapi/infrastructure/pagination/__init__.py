"""Pages and cursors over any query, at a cost that does not grow with the table."""

from userapi.infrastructure.pagination.cursors import InvalidCursor
from userapi.infrastructure.pagination.order import SortKey
from userapi.infrastructure.pagination.pages import (
    Page,
    PageRequest,
    PageTooDeep,
    Paginator,
)
from userapi.infrastructure.pagination.queries import COUNTED_ROWS

__all__ = [
    "COUNTED_ROWS",
    "InvalidCursor",
    "Page",
    "PageRequest",
    "PageTooDeep",
    "Paginator",
    "SortKey",
]
