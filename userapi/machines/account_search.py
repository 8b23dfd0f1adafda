"""Search: the list of service accounts with filters, text search, pages and cursors."""

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, exists, select

from userapi.accounts.models import searchable
from userapi.clock import Clock
from userapi.infrastructure.database import reading
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey
from userapi.machines.active_keys import KeyAttention, is_active_key, keys, needs
from userapi.machines.models import AccountStatus
from userapi.machines.views import (
    AccountView,
    account_roles,
    account_view,
    accounts,
    all_accounts,
)

DEFAULT_SORT = "-created_at"
LIKE_SIGN, ESCAPED = re.compile(r"[\\%_]"), r"\\\g<0>"
# The values for "never" in the order by last use: before and after all others.
NEVER = (datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountFilter:
    """A filter of service accounts; fields that are None do not filter."""

    search: str | None = None
    status: AccountStatus | None = None
    role: str | None = None
    keys: KeyAttention | None = None
    """Only accounts with an active key that needs this attention."""


class ServiceAccountSearch:
    """Lists service accounts."""

    def __init__(self, *, clock: Clock, cursor_key: str) -> None:
        self._clock = clock
        self._paginator = Paginator(
            secret=cursor_key,
            name="service-accounts",
            keys={
                "name": SortKey(accounts.c.name),
                "created_at": SortKey(accounts.c.created_at),
                "last_used_at": SortKey(accounts.c.last_used_at, stand_ins=NEVER),
            },
            default_sort=DEFAULT_SORT,
            tie_breaker=accounts.c.id,
        )

    def require_order(self, sort: str | None) -> None:
        """Raise Invalid for an unknown sort order."""
        self._paginator.require_order(sort)

    def names(self, account_ids: Collection[UUID]) -> dict[UUID, str]:
        """Return the names of the ids that exist."""
        named = select(accounts.c.id, accounts.c.name).where(accounts.c.id.in_(account_ids))
        with reading() as connection:
            return {row.id: row.name for row in connection.execute(named)}

    def page(self, wanted: ServiceAccountFilter, page: PageRequest) -> Page[AccountView]:
        """Return a page of the list. Raises what `Paginator.page` raises."""
        now = self._clock.now()
        query = all_accounts(now).where(*_conditions(wanted, now))
        with reading() as connection:
            return self._paginator.page(
                connection, query, page, filters=asdict(wanted), item=account_view
            )


def _conditions(wanted: ServiceAccountFilter, now: datetime) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.search:
        text = re.sub(LIKE_SIGN, ESCAPED, searchable(wanted.search))
        conditions.append(accounts.c.search_text.like(f"%{text}%", escape="\\"))
    if wanted.status is not None:
        conditions.append(accounts.c.status == wanted.status)
    if wanted.role is not None:
        conditions.append(
            exists().where(
                account_roles.c.service_account_id == accounts.c.id,
                account_roles.c.role_name == wanted.role,
            )
        )
    if wanted.keys is not None:
        conditions.append(
            exists().where(
                keys.c.service_account_id == accounts.c.id,
                is_active_key(now),
                needs(wanted.keys, now),
            )
        )
    return conditions
