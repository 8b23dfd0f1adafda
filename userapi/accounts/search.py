"""Search: the list of users with filters, text search, pages and cursors."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    exists,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from userapi.accounts.addresses import canonical_identifier
from userapi.accounts.models import UserStatus, searchable
from userapi.accounts.views import ALL_USERS, UserView, user_view, users
from userapi.clock import Clock
from userapi.infrastructure.database import is_postgresql, reading
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey
from userapi.infrastructure.user_counts import UserCountKind, counts_of
from userapi.roles.models import UserRole

DEFAULT_SORT = "-created_at"
# The special characters of LIKE.
LIKE_SIGN, ESCAPED = re.compile(r"[\\%_]"), r"\\\g<0>"
HAS_TRIGRAM = re.compile(r"[^\W_]{3}")
# Reading this many rows through an index takes about 50 ms.
RARE_ROWS = 50_000
# The values for "never" in the order by last log-in: before and after all others. An index of
# PostgreSQL contains the same two values.
NEVER = (datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


_HOLDS = users.c.search_text.like(bindparam("search"), escape="\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """A filter of users; fields that are None do not filter."""

    search: str | None = None
    status: UserStatus | None = None
    role: str | None = None
    email: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    last_login_after: datetime | None = None
    last_login_before: datetime | None = None
    locked: bool | None = None
    mfa_enabled: bool | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that filter."""
        return tuple(name for name in self.__slots__ if getattr(self, name) is not None)

    @property
    def values(self) -> dict[str, Any]:
        """Return the fields that filter, with their values."""
        return {name: getattr(self, name) for name in self.fields}


class holds_grams(FunctionElement[bool]):  # noqa: N801 - a function of SQL
    """Whether a text contains all given characters and pairs of characters; uses an index."""

    type = Boolean()
    name = "holds_grams"
    inherit_cache = True


@compiles(holds_grams)
def _compile_holds_grams(element: holds_grams, compiler: SQLCompiler, **kwargs: Any) -> str:
    column, *grams = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"search_grams({column}) @> ARRAY[{', '.join(grams)}]"


class UserSearch:
    """Lists users."""

    def __init__(self, *, clock: Clock, cursor_key: str) -> None:
        self._clock = clock
        # By the names of the fields that filter: at most 2304 combinations.
        self._queries: dict[tuple[object, ...], Select[Any]] = {}
        self._paginator = Paginator(
            secret=cursor_key,
            name="users",
            keys={
                "created_at": SortKey(users.c.created_at),
                "updated_at": SortKey(users.c.updated_at),
                "username": SortKey(users.c.username),
                "email": SortKey(users.c.email),
                "last_login_at": SortKey(users.c.last_login_at, stand_ins=NEVER),
                "status": SortKey(users.c.status, values=sorted(UserStatus)),
            },
            default_sort=DEFAULT_SORT,
            tie_breaker=users.c.id,
        )

    def require_order(self, sort: str | None) -> None:
        """Raise Invalid for an unknown sort order."""
        self._paginator.require_order(sort)

    def page(self, wanted: UserFilter, page: PageRequest) -> Page[UserView]:
        """Return a page of the list. Raises what `Paginator.page` raises."""
        now = self._clock.now()
        with reading() as connection:
            query, parameters = self._matching(wanted, connection)
            return self._paginator.page(
                connection,
                query,
                page,
                filters=wanted.values,
                parameters=parameters,
                counted=_counted(query, wanted),
                one_range=_is_range_of_order(wanted, page),
                item=lambda row: user_view(row, now),
            )

    def counted_total(self, wanted: UserFilter) -> int | None:
        """Return the exact number of matching users where it is counted as users change.

        That is the number of all users, of those with a status, and of those with a role. Returns
        None for any other filter.
        """
        if wanted not in (UserFilter(status=wanted.status), UserFilter(role=wanted.role)):
            return None
        kind = UserCountKind.STATUS if wanted.role is None else UserCountKind.ROLE
        with reading() as connection:
            counts = counts_of(connection, kind)
        key = wanted.role or wanted.status
        return sum(counts.values()) if key is None else counts.get(key, 0)

    def names(self, user_ids: Collection[UUID]) -> dict[UUID, str]:
        """Return the user names of the ids that exist."""
        named = select(users.c.id, users.c.username).where(users.c.id.in_(user_ids))
        with reading() as connection:
            return {row.id: row.username for row in connection.execute(named)}

    def drop_cached_totals(self) -> None:
        """Make the next request count large results again."""
        self._paginator.drop_cached_totals()

    def matching(self, wanted: UserFilter, connection: Connection) -> Select[Any]:
        """Return the query for the users that match the filter, without an order."""
        query, parameters = self._matching(wanted, connection)
        return query if parameters is None else query.params(parameters)

    def _matching(
        self, wanted: UserFilter, connection: Connection
    ) -> tuple[Select[Any], dict[str, Any] | None]:
        """Return a query and its parameters. The query is cached for filters with the same fields.

        A query that depends on the searched text contains its values and has no parameters; it is
        not cached.
        """
        text = searchable(wanted.search or "")
        parameters = self._parameters(wanted, text)
        searched = [_holds(text, connection)] if wanted.search else []
        if searched and searched[0] is not _HOLDS:
            return ALL_USERS.where(*searched, *_conditions(wanted)).params(parameters), None
        # An empty search is among the fields, but adds no condition.
        shape = (bool(searched), wanted.locked, wanted.mfa_enabled, *wanted.fields)
        query = self._queries.get(shape)
        if query is None:
            query = self._queries[shape] = ALL_USERS.where(*searched, *_conditions(wanted))
        return query, parameters

    def _parameters(self, wanted: UserFilter, text: str) -> dict[str, Any]:
        given = wanted.values
        given["search"] = f"%{re.sub(LIKE_SIGN, ESCAPED, text)}%"
        if wanted.email is not None:
            given["email"] = canonical_identifier(wanted.email)
        if wanted.last_login_before is not None:
            given["a_day_later"] = _a_day_after(wanted.last_login_before)
        given["now"] = self._clock.now()
        return given


def _conditions(wanted: UserFilter) -> list[ColumnElement[bool]]:
    """Return all conditions except the search; parameters have the names of the fields."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.role is not None:
        conditions.append(exists().where(UserRole.user_id == users.c.id, *_has_role(wanted)))
    elif wanted.status is not None:
        conditions.append(users.c.status == bindparam("status"))
    if wanted.email is not None:
        conditions.append(users.c.email_normalized == bindparam("email"))
    if wanted.created_after is not None:
        conditions.append(users.c.created_at > bindparam("created_after"))
    if wanted.created_before is not None:
        conditions.append(users.c.created_at < bindparam("created_before"))
    if wanted.last_login_after is not None:
        conditions.append(users.c.last_login_at > bindparam("last_login_after"))
    if wanted.last_login_before is not None:
        conditions.append(users.c.last_login_at < bindparam("last_login_before"))
        # No user logs in before they are created. Without this condition the newest users, none of
        # whom can match, would be read first. Clocks differ by less than a day.
        conditions.append(users.c.created_at < bindparam("a_day_later"))
    if wanted.locked is True:
        conditions.append(users.c.locked_until > bindparam("now"))
    elif wanted.locked is False:
        unlocked = or_(users.c.locked_until.is_(None), users.c.locked_until <= bindparam("now"))
        conditions.append(unlocked)
    if wanted.mfa_enabled is not None:
        conditions.append(users.c.mfa_enabled if wanted.mfa_enabled else ~users.c.mfa_enabled)
    return conditions


def _holds(text: str, connection: Connection) -> ColumnElement[bool]:
    """Return the condition that the search text of a user contains `text`, for the best index.

    A text without three letters or digits in a row has no trigram. If its pairs of characters are
    rare, the index of grams finds it; if every other user has them, reading the list in its order
    finds a page sooner. The planner estimates the number of rows from its statistics, in half a
    millisecond.
    """
    if not is_postgresql(connection) or HAS_TRIGRAM.search(text):
        return _HOLDS
    grams = sorted({text[start : start + 2] for start in range(max(1, len(text) - 1))})
    by_index = holds_grams(users.c.search_text, *(literal(gram, Text()) for gram in grams))
    if _estimated(select(users.c.id).where(by_index), connection) > RARE_ROWS:
        return _HOLDS
    return by_index if len(text) <= 2 else and_(by_index, _HOLDS)


def _estimated(query: Select[Any], connection: Connection) -> float:
    """Return the planner's estimate of the number of rows, without running the query."""
    compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
    explained = connection.exec_driver_sql(
        f"EXPLAIN (FORMAT JSON) {compiled}", dict(compiled.params)
    )
    plan = explained.scalar_one()
    return float(plan[0]["Plan"]["Plan Rows"])


def _has_role(wanted: UserFilter) -> list[ColumnElement[bool]]:
    """Return the conditions for user_roles, which also has the status of the user."""
    conditions = [UserRole.role_name == bindparam("role")]
    if wanted.status is not None:
        conditions.append(UserRole.user_status == bindparam("status"))
    return conditions


def _counted(query: Select[Any], wanted: UserFilter) -> Select[Any] | None:
    """Return a query that counts the users faster than reading the list in its order, if any."""
    if wanted.role is None:
        return None
    if wanted == UserFilter(role=wanted.role, status=wanted.status):
        of_role = select(UserRole.user_id).where(*_has_role(wanted))
        return of_role.order_by(UserRole.user_status, UserRole.user_id)
    return query


def _is_range_of_order(wanted: UserFilter, page: PageRequest) -> bool:
    """Return whether the matching users are consecutive in the order of the list."""
    first_key = (page.sort or DEFAULT_SORT).split(",")[0].removeprefix("-")
    bounds = UserFilter(created_after=wanted.created_after, created_before=wanted.created_before)
    return first_key == "created_at" and wanted == bounds


def _a_day_after(moment: datetime) -> datetime:
    return moment + timedelta(days=1) if moment < NEVER[1] else moment
