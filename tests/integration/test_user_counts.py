"""Users are counted as they change, and the counts are always exact."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, insert, select, text, update

from tests.integration.test_commands import flask
from userapi.accounts.models import User, UserStatus
from userapi.accounts.views import users
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, new_id, reading, transaction
from userapi.infrastructure.user_counts import (
    UserCountChange,
    UserCountKind,
    counts_of,
    fold_user_count_changes,
)
from userapi.roles.models import UserRole

pytestmark = pytest.mark.both_databases

ROLES = ("user", "moderator", "admin")


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def row(number: int, **fields: Any) -> dict[str, Any]:
    name = f"u{number:05d}"
    address = f"{name}@example.com"
    now = fields.pop("now")
    return {
        "id": new_id(),
        "username": name,
        "email": address,
        "email_normalized": address,
        "status": "active",
        "created_at": now,
        "updated_at": now,
        "last_login_at": None,
        **fields,
    }


def known() -> dict[UserCountKind, dict[str, int]]:
    with reading() as connection:
        return {kind: counts_of(connection, kind) for kind in UserCountKind}


def counted() -> dict[UserCountKind, dict[str, int]]:
    """Count in Python, row by row."""
    with reading() as connection:
        everybody = connection.execute(select(users.c.status, users.c.last_login_at)).all()
        roles = connection.execute(select(UserRole.role_name)).scalars().all()
    days = [user.last_login_at.date().isoformat() for user in everybody if user.last_login_at]
    return {
        UserCountKind.LAST_LOGIN_DAY: dict(Counter(days)),
        UserCountKind.ROLE: dict(Counter(roles)),
        UserCountKind.STATUS: dict(Counter(user.status for user in everybody)),
    }


def waiting() -> int:
    with reading() as connection:
        return int(connection.execute(select(func.count(UserCountChange.id))).scalar_one())


def moment(chance: random.Random, now: datetime) -> datetime | None:
    """Return one of a few days, often a time next to midnight."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return chance.choice(
        [None, *(midnight - timedelta(days=d, microseconds=m) for d in (0, 1, 40) for m in (0, 1))]
    )


def test_every_kind_of_change_is_counted(clock: ManualClock) -> None:
    chance = random.Random(20260303)
    now = clock.now()
    for step in range(60):
        with transaction() as session:
            some = session.scalars(select(users.c.id).order_by(func.random()).limit(4)).all()
            draw = chance.randrange(6)
            if draw == 0:
                added = [
                    row(
                        step * 10 + number,
                        now=now,
                        status=chance.choice(list(UserStatus)),
                        last_login_at=moment(chance, now),
                    )
                    for number in range(chance.randint(1, 9))
                ]
                session.execute(insert(User), added)
                session.execute(
                    insert(UserRole),
                    [
                        {"user_id": user["id"], "role_name": role}
                        for user in added
                        for role in chance.sample(ROLES, chance.randint(1, 3))
                    ],
                )
            elif draw == 1:
                session.execute(
                    update(users)
                    .where(users.c.id.in_(some))
                    .values(status=chance.choice(list(UserStatus)))
                )
            elif draw == 2:
                session.execute(
                    update(users)
                    .where(users.c.id.in_(some))
                    .values(
                        last_login_at=moment(chance, now), status=chance.choice(list(UserStatus))
                    )
                )
            elif draw == 3:
                session.execute(
                    delete(UserRole).where(
                        UserRole.user_id.in_(some), UserRole.role_name == chance.choice(ROLES)
                    )
                )
            elif draw == 4 and step > 20:
                session.execute(delete(users).where(users.c.id.in_(some[:2])))
        if chance.random() < 0.3:
            fold_user_count_changes(limit=chance.randint(1, 12))

        assert known() == counted()

    fold_user_count_changes()
    assert waiting() == 0
    assert known() == counted()


def test_a_change_that_is_rolled_back_is_not_counted(clock: ManualClock) -> None:
    with pytest.raises(ZeroDivisionError), transaction() as session:
        session.execute(insert(User), [row(1, now=clock.now())])
        raise ZeroDivisionError

    assert known()[UserCountKind.STATUS] == {}


def test_a_second_log_in_on_the_same_day_adds_no_change(clock: ManualClock) -> None:
    noon = clock.now().replace(hour=12)
    with transaction() as session:
        session.execute(insert(User), [row(1, now=noon, last_login_at=noon)])
    fold_user_count_changes()

    with transaction() as session:
        session.execute(update(users).values(last_login_at=noon + timedelta(hours=1)))

    assert waiting() == 0


def test_concurrently_folded_changes_are_counted_once(app: Flask, clock: ManualClock) -> None:
    """Two workers fold changes repeatedly while others read."""
    for number in range(150):
        with transaction() as session:
            session.execute(insert(User), [row(number, now=clock.now())])
    begin = threading.Barrier(3)

    def work() -> int:
        added = 0
        with app.app_context():
            begin.wait()
            while count := fold_user_count_changes(limit=3):
                added += count
        return added

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        begin.wait()
        seen = []
        while not all(worker.done() for worker in workers):
            seen.append(known()[UserCountKind.STATUS])
        added = sum(worker.result() for worker in workers)

    while count := fold_user_count_changes():  # What one had locked when the other looked.
        added += count
    assert all(counts == {"active": 150} for counts in seen)
    assert known()[UserCountKind.STATUS] == {"active": 150}
    assert (added, waiting()) == (150, 0)


def test_rows_inserted_without_the_triggers_can_be_counted_again(
    app: Flask, clock: ManualClock
) -> None:
    now = clock.now()
    with transaction() as session:
        added = [row(number, now=now, last_login_at=now) for number in range(3)]
        session.execute(insert(User), added)
        session.execute(
            insert(UserRole), [{"user_id": user["id"], "role_name": "user"} for user in added]
        )
    with db.engine.begin() as connection:
        connection.execute(text("DELETE FROM tally_changes"))
    assert known()[UserCountKind.STATUS] == {}

    result = flask(app, "users", "stats", "--recount")

    assert result.exit_code == 0, result.output
    assert known() == counted()
    assert known()[UserCountKind.ROLE] == {"user": 3}
