"""The list of the jobs of one kind, with filters, an order, pages and cursors."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from sqlalchemy import Row, Table, select

from userapi.infrastructure.database import reading
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey

DEFAULT_SORT = "-created_at"

View = TypeVar("View")


class JobHistory(Generic[View]):
    """Lists the jobs of a table."""

    def __init__(
        self,
        jobs: Table,
        *,
        size: str,
        name: str,
        cursor_key: str,
        view: Callable[[Row[Any]], View],
    ) -> None:
        """`size` is the column with the number of users or rows that a job is for."""
        self._jobs = jobs
        self._view = view
        self._paginator = Paginator(
            secret=cursor_key,
            name=name,
            keys={
                "created_at": SortKey(jobs.c.created_at),
                "size": SortKey(jobs.c[size]),
                "failed": SortKey(jobs.c.failed),
            },
            default_sort=DEFAULT_SORT,
            tie_breaker=jobs.c.id,
        )

    def page(self, page: PageRequest, **allowed: Collection[object]) -> Page[View]:
        """Return a page of the jobs whose columns have one of the allowed values.

        Raises what `Paginator.page` raises.
        """
        conditions = [self._jobs.c[name].in_(values) for name, values in allowed.items()]
        filters: Mapping[str, object] = {
            name: sorted(map(str, values)) for name, values in allowed.items()
        }
        with reading() as connection:
            return self._paginator.page(
                connection,
                select(self._jobs).where(*conditions),
                page,
                filters=filters,
                item=self._view,
            )
