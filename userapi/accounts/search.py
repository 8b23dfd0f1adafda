"""Finding users: filters that combine, literal search, pages and cursors."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, exists, or_

from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import UserStatus, searchable
from userapi.accounts.views import UserView, user_query, user_view, users
from userapi.clock import Clock
from userapi.database import reading
from userapi.paging import Page, PageRequest, Paginator, SortKey
from userapi.roles.models import UserRole
from userapi.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """Which users are wanted; what is None does not filter."""

    search: str | None = None
    status: UserStatus | None = None
    role: str | None = None
    email: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    last_login_after: datetime | None = None
    last_login_before: datetime | None = None
    locked: bool | None = None


class UserSearch:
    """Lists users."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._paginator = Paginator(
            secret=settings.secret_key,
            name="users",
            keys={
                "created_at": SortKey(users.c.created_at),
                "updated_at": SortKey(users.c.updated_at),
                "username": SortKey(users.c.username),
                "email": SortKey(users.c.email),
                "last_login_at": SortKey(users.c.last_login_at, nullable=True),
                "status": SortKey(users.c.status),
            },
            default_sort="-created_at",
            tie_breaker=users.c.id,
        )

    def page(self, wanted: UserFilter, page: PageRequest) -> Page[UserView]:
        """Return the wanted part of the list. Raises as `Paginator.page` does."""
        now = self._clock.now()
        with reading() as connection:
            return self._paginator.page(
                connection,
                self.matching(wanted),
                page,
                filters=asdict(wanted),
                item=lambda row: user_view(row, now),
            )

    def matching(self, wanted: UserFilter) -> Select[Any]:
        """Return the query for the users that `wanted` describes, without an order."""
        query = user_query()
        if wanted.search:
            for_like = (
                searchable(wanted.search)
                .replace("\\", "\\\\")
                .replace("%", "\\%")
                .replace("_", "\\_")
            )
            query = query.where(users.c.search_text.like(f"%{for_like}%", escape="\\"))
        if wanted.status is not None:
            query = query.where(users.c.status == wanted.status)
        if wanted.role is not None:
            query = query.where(
                exists().where(UserRole.user_id == users.c.id, UserRole.role_name == wanted.role)
            )
        if wanted.email is not None:
            query = query.where(users.c.email_normalized == canonical_identifier(wanted.email))
        if wanted.created_after is not None:
            query = query.where(users.c.created_at > wanted.created_after)
        if wanted.created_before is not None:
            query = query.where(users.c.created_at < wanted.created_before)
        if wanted.last_login_after is not None:
            query = query.where(users.c.last_login_at > wanted.last_login_after)
        if wanted.last_login_before is not None:
            query = query.where(users.c.last_login_at < wanted.last_login_before)
        if wanted.locked is not None:
            now = self._clock.now()
            locked = and_(users.c.locked_until.isnot(None), users.c.locked_until > now)
            unlocked = or_(users.c.locked_until.is_(None), users.c.locked_until <= now)
            query = query.where(locked if wanted.locked else unlocked)
        return query
