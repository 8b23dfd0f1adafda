"""The list of users compared with a simple model: combinations of filters, sorts and pages."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, insert, text

from tests.support.databases import patient_transaction
from userapi.accounts.models import User, UserStatus, searchable
from userapi.accounts.search import UserFilter
from userapi.errors import Invalid
from userapi.infrastructure.database import (
    new_id,
    table_of,
)
from userapi.infrastructure.pagination import COUNTED_ROWS, InvalidCursor, PageRequest, PageTooDeep
from userapi.roles.models import UserRole
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

USERS = 70
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ["Anna", "Ba%n_a", "Çelik", "王伟", "Straße", "a\\b", None]
SORTS = ["created_at", "updated_at", "username", "email", "last_login_at", "status"]
PATIENT = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_users = table_of(User)
_user_roles = table_of(UserRole)

Row = dict[str, Any]


def make_rows(count: int, seed: int = 3) -> list[Row]:
    """Return users with few different values, so that many are equal."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        created = NOON + timedelta(hours=chance.randrange(8))
        first, last = chance.choice(NAMES), chance.choice(NAMES)
        username = f"{chance.choice('abc')}{chance.choice('._-')}{seed}-{number}"
        email = f"{chance.choice('xyz')}{seed}-{number}@example.com"
        rows.append(
            {
                "id": new_id(),
                "username": username,
                "email": email,
                "email_normalized": email,
                "email_verified": True,
                "must_change_password": False,
                "first_name": first,
                "last_name": last,
                "status": chance.choice(list(UserStatus)),
                "locked_until": chance.choice([None, None, NOON, NOON + timedelta(days=9000)]),
                "attributes": {},
                "search_text": searchable(username, email, first, last),
                "version": 1,
                "access_version": 1,
                "created_at": created,
                "updated_at": created + timedelta(hours=chance.randrange(3)),
                "last_login_at": chance.choice(
                    [None, created, created + timedelta(hours=chance.randrange(30))]
                ),
                "roles": chance.sample(["user", "moderator", "admin"], chance.randint(1, 2)),
            }
        )
    chance.shuffle(rows)
    return rows


def insert_rows(rows: list[Row]) -> None:
    with patient_transaction() as session:
        session.execute(
            insert(_users),
            [{k: value for k, value in row.items() if k != "roles"} for row in rows],
        )
        session.execute(
            insert(_user_roles),
            [{"user_id": row["id"], "role_name": r} for row in rows for r in row["roles"]],
        )


def matches(row: Row, wanted: UserFilter, now: datetime) -> bool:
    locked = row["locked_until"] is not None and row["locked_until"] > now
    login = row["last_login_at"]
    return (
        (not wanted.search or searchable(wanted.search) in row["search_text"])
        and (wanted.status is None or row["status"] == wanted.status)
        and (wanted.role is None or wanted.role in row["roles"])
        and (wanted.email is None or row["email_normalized"] == wanted.email.casefold())
        and (wanted.created_after is None or row["created_at"] > wanted.created_after)
        and (wanted.created_before is None or row["created_at"] < wanted.created_before)
        and (wanted.last_login_after is None or (login and login > wanted.last_login_after))
        and (wanted.last_login_before is None or (login and login < wanted.last_login_before))
        and (wanted.locked is None or locked == wanted.locked)
    )


def in_order(rows: list[Row], sort: str) -> list[Row]:
    parts = sort.split(",")
    ordered = sorted(rows, key=lambda row: row["id"], reverse=parts[0].startswith("-"))
    for part in reversed(parts):
        name = part.removeprefix("-")
        there = [row for row in ordered if row[name] is not None]
        there.sort(key=lambda row: row[name], reverse=part.startswith("-"))
        ordered = there + [row for row in ordered if row[name] is None]
    return ordered


moments = st.integers(-1, 40).map(lambda hours: NOON + timedelta(hours=hours))
filters = st.builds(
    UserFilter,
    search=st.none()
    | st.sampled_from(
        [
            "a",
            "an",
            "ann",
            "%",
            "_",
            "\\",
            "王",
            "王伟",
            "ss",
            "STRASSE",
            "example",
            "q",
            "a.",
            "3-1",
        ]
    ),
    status=st.none() | st.sampled_from(UserStatus),
    role=st.none() | st.sampled_from(["user", "moderator", "admin", "superadmin"]),
    email=st.none() | st.sampled_from(["x3-1@example.com", "Y3-2@EXAMPLE.com", "z3-3@example.com"]),
    created_after=st.none() | moments,
    created_before=st.none() | moments,
    last_login_after=st.none() | moments,
    last_login_before=st.none() | moments,
    locked=st.none() | st.booleans(),
)
# Most filters are left out in most examples, or nothing would ever match.
sparse_filters = st.builds(
    lambda full, kept: UserFilter(**{name: getattr(full, name) for name in kept}),
    filters,
    st.sets(st.sampled_from(list(UserFilter.__dataclass_fields__)), max_size=3),
)
sorts = st.lists(st.sampled_from(SORTS), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.tuples(*(st.sampled_from([name, f"-{name}"]) for name in names)).map(",".join)
)


@pytest.fixture
def rows(app: Flask) -> list[Row]:
    made = make_rows(USERS)
    with app.app_context():
        insert_rows(made)
    return made


@PATIENT
@given(wanted=sparse_filters | filters, sort=sorts, page=st.integers(1, 9), size=st.integers(1, 30))
def test_a_page_equals_that_of_the_model(
    app: Flask, services: Services, rows: list[Row], **example: Any
) -> None:
    wanted, sort, page, size = (example[n] for n in ("wanted", "sort", "page", "size"))
    expected = in_order([r for r in rows if matches(r, wanted, services.clock.now())], sort)

    with app.app_context():
        found = services.user_search.page(wanted, PageRequest(page=page, page_size=size, sort=sort))

    assert [user.id for user in found.items] == [
        row["id"] for row in expected[(page - 1) * size : page * size]
    ]
    assert (found.total, found.total_is_exact) == (len(expected), True)
    assert found.pages == -(-len(expected) // size)
    assert (found.next_cursor is not None) == (page * size < len(expected))


@pytest.mark.thorough
@PATIENT
@given(wanted=sparse_filters, sort=sorts, size=st.integers(1, 30))
def test_cursors_read_the_rows_of_the_model(
    app: Flask, services: Services, rows: list[Row], **example: Any
) -> None:
    wanted, sort, size = (example[name] for name in ("wanted", "sort", "size"))
    expected = in_order([r for r in rows if matches(r, wanted, services.clock.now())], sort)

    walked = []
    cursor = None
    with app.app_context():
        while True:
            found = services.user_search.page(
                wanted, PageRequest(page_size=size, sort=sort, cursor=cursor)
            )
            walked += [user.id for user in found.items]
            cursor = found.next_cursor
            if cursor is None:
                break

    assert walked == [row["id"] for row in expected]


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS), "-status,username"])
def test_cursors_read_each_row_once_while_others_are_added(
    app: Flask, services: Services, rows: list[Row], sort: str
) -> None:
    walked = []
    cursor = None
    with app.app_context():
        for turn in range(1000):
            found = services.user_search.page(
                UserFilter(), PageRequest(page_size=9, sort=sort, cursor=cursor)
            )
            walked += [user.id for user in found.items]
            cursor = found.next_cursor
            if cursor is None:
                break
            if turn < 5:
                insert_rows(make_rows(4, seed=100 + turn))

    assert len(walked) == len(set(walked))
    assert [w for w in walked if w in {r["id"] for r in rows}] == [
        row["id"] for row in in_order(rows, sort)
    ]


@pytest.fixture
def cursor(app: Flask, services: Services, rows: list[Row]) -> str:
    with app.app_context():
        made = services.user_search.page(UserFilter(), PageRequest(page_size=5)).next_cursor
    assert made is not None
    return made


def open_with(
    app: Flask, services: Services, cursor: str, sort: str | None = None, **wanted: Any
) -> Callable[[], object]:
    def run() -> object:
        with app.app_context():
            return services.user_search.page(
                UserFilter(**wanted), PageRequest(cursor=cursor, sort=sort)
            )

    return run


@PATIENT
@given(position=st.integers(0, 10_000), character=st.sampled_from("AZaz09-_=+/é \0"))
def test_a_changed_cursor_is_rejected(
    app: Flask, services: Services, cursor: str, position: int, character: str
) -> None:
    at = position % len(cursor)
    changed = cursor[:at] + character + cursor[at + 1 :]

    if changed != cursor:
        with pytest.raises(InvalidCursor):
            open_with(app, services, changed)()


@PATIENT
@given(cursor=st.text(max_size=80))
def test_no_other_text_is_a_cursor(app: Flask, services: Services, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        open_with(app, services, cursor)()


def test_a_cursor_belongs_to_its_sort_and_filters(
    app: Flask, services: Services, cursor: str
) -> None:
    open_with(app, services, cursor)()
    open_with(app, services, cursor, sort="-created_at")()

    for other in (
        open_with(app, services, cursor, sort="created_at"),
        open_with(app, services, cursor, sort="-created_at,username"),
        open_with(app, services, cursor, locked=False),
        open_with(app, services, cursor, search=""),
        open_with(app, services, cursor + "="),
        open_with(app, services, cursor[:-1]),
    ):
        with pytest.raises(InvalidCursor):
            other()


@pytest.mark.parametrize(("page", "size"), [(101, 100), (10_001, 1), (501, 20), (10**9, 100)])
def test_a_page_reaches_ten_thousand_rows_deep(
    app: Flask, services: Services, page: int, size: int
) -> None:
    with app.app_context():
        services.user_search.page(UserFilter(), PageRequest(page=10_000 // size, page_size=size))

        with pytest.raises(PageTooDeep) as refusal:
            services.user_search.page(UserFilter(), PageRequest(page=page, page_size=size))

    assert [(e.field, e.code) for e in refusal.value.errors] == [("page", "page_too_deep")]


@pytest.mark.parametrize(
    "sort", ["", ",", "-", "id", "username,username", "username,-username", "--email"]
)
def test_an_unknown_sort_is_rejected(app: Flask, services: Services, sort: str) -> None:
    with app.app_context(), pytest.raises(Invalid):
        services.user_search.page(UserFilter(), PageRequest(sort=sort))


ALIKE = """
    INSERT INTO users (id, username, email, email_normalized, email_verified, must_change_password,
                       status, attributes, search_text, version, access_version, created_at,
                       updated_at)
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    SELECT {id}, 'user-' || n, 'user-' || n, 'user-' || n, true, false,
           'active', '{{}}', 'user-' || n, 1, 1, :now, :now
    FROM numbers
"""
IDS = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}


def add_alike(count: int) -> None:
    """Add users by one statement: through the service so many take minutes."""
    with patient_transaction() as session:
        statement = text(ALIKE.format(id=IDS[session.get_bind().dialect.name]))
        now = bindparam("now", NOON, type_=_users.c.created_at.type)
        session.execute(statement.bindparams(now), {"count": count})


@pytest.mark.thorough
def test_a_total_counts_to_ten_thousand(app: Flask, services: Services) -> None:
    with app.app_context():
        add_alike(COUNTED_ROWS)
        exact = services.user_search.page(UserFilter(), PageRequest(page_size=100, page=100))
        insert_rows(make_rows(1, seed=4))
        capped = services.user_search.page(UserFilter(), PageRequest())
        again = services.user_search.page(UserFilter(), PageRequest())
        with patient_transaction() as session:
            session.execute(_users.delete().where(_users.c.username != "nobody"))
        emptied = services.user_search.page(UserFilter(), PageRequest())

    assert (exact.total, exact.total_is_exact, exact.next_cursor) == (10_000, True, None)
    for page in (capped, again):
        assert (page.total, page.total_is_exact, page.pages) == (10_000, False, 500)
    assert (emptied.total, emptied.total_is_exact) == (0, True)
