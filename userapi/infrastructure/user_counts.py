"""How many users there are of a kind, without counting them.

Triggers insert a row into `tally_changes` in the transaction of each change, so that two concurrent
changes never wait for one counter; the worker adds these rows to `tallies` and deletes them. A
reader adds up both tables in one statement, and the result is exact.
"""

from collections import Counter
from datetime import date
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    table,
    text,
    union_all,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from userapi.infrastructure.database import (
    LONG_READ_SECONDS,
    Base,
    CountingKey,
    dialect_of,
    excluded,
    is_postgresql,
    reading,
    statement_timeout,
    table_of,
    transaction,
    upsert,
)

BATCH = 1000


class UserCountKind(StrEnum):
    """What is counted: users by the UTC day of their last log-in, by role, and by status."""

    LAST_LOGIN_DAY = "last_login_day"
    ROLE = "role"
    STATUS = "status"


class UserCount(Base):
    """How many users there are of a kind, without the changes that the worker has not added."""

    __tablename__ = "tallies"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class UserCountChange(Base):
    """An increase or decrease of one count. Triggers write it."""

    __tablename__ = "tally_changes"

    id: Mapped[int] = mapped_column(CountingKey, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(64))
    change: Mapped[int] = mapped_column(BigInteger)


_counts = table_of(UserCount)
_changes = table_of(UserCountChange)


def user_counts(kind: UserCountKind, *, first: str = "") -> Select[str, int]:
    """Return the query for the keys of a kind from `first` on, and the number of users of each."""
    added = select(_counts.c.key, _counts.c.count).where(
        _counts.c.kind == kind, _counts.c.key >= first
    )
    pending = select(_changes.c.key, _changes.c.change).where(
        _changes.c.kind == kind, _changes.c.key >= first
    )
    lines = union_all(added, pending).subquery()
    total = func.sum(lines.c.count, type_=BigInteger).label("count")
    return select(lines.c.key, total).group_by(lines.c.key)


def counts_of(connection: Connection | Session, kind: UserCountKind) -> dict[str, int]:
    """Return how many users there are by key."""
    return {key: int(count) for key, count in connection.execute(user_counts(kind)) if count}


def last_logins_from(connection: Connection, first: date) -> dict[date, int]:
    """Return by day, from `first` on, how many users logged in last on that day."""
    # As text: days sort as their ISO form does.
    days = user_counts(UserCountKind.LAST_LOGIN_DAY, first=first.isoformat())
    return {date.fromisoformat(day): int(count) for day, count in connection.execute(days)}


def fold_user_count_changes(limit: int = 10 * BATCH) -> int:
    """Add up to `limit` pending changes to the counts, and return how many."""
    added = 0
    while added < limit:
        count = _fold(min(BATCH, limit - added))
        if count == 0:
            break
        added += count
    return added


def _fold(limit: int) -> int:
    with reading() as connection:
        # Most passes end here, without a transaction that would lock anything.
        if connection.execute(select(_changes.c.id).limit(1)).first() is None:
            return 0
    # Concurrent workers fold different rows.
    pending = (
        select(_changes).order_by(_changes.c.id).limit(limit).with_for_update(skip_locked=True)
    )
    with transaction() as session:
        changes = session.execute(pending).all()
        sums: Counter[tuple[str, str]] = Counter()
        for change in changes:
            sums[change.kind, change.key] += change.change
        rows = [
            {"kind": kind, "key": key, "count": count}
            for (kind, key), count in sorted(sums.items())
            if count
        ]
        if rows:
            added = {"count": _counts.c.count + excluded(_counts.c.count)}
            session.execute(upsert(dialect_of(session), _counts, rows, changes=added))
            session.execute(delete(_counts).where(_counts.c.count == 0))
        session.execute(delete(_changes).where(_changes.c.id.in_([c.id for c in changes])))
    return len(changes)


def rebuild_user_counts() -> None:
    """Count all users again, for a database whose rows were inserted without the triggers.

    Changes of users wait meanwhile: two seconds with a million users.
    """
    users = table("users", column("status"), column("last_login_at"))
    user_roles = table("user_roles", column("role_name"))
    day = cast(func.date(users.c.last_login_at), String)
    has_logged_in = users.c.last_login_at.is_not(None)
    counted = [
        _counted(UserCountKind.STATUS, users.c.status),
        _counted(UserCountKind.LAST_LOGIN_DAY, day).where(has_logged_in),
        _counted(UserCountKind.ROLE, user_roles.c.role_name),
    ]
    with transaction() as session, statement_timeout(session, LONG_READ_SECONDS):
        if is_postgresql(session):
            session.execute(text("LOCK TABLE users, user_roles IN SHARE ROW EXCLUSIVE MODE"))
        session.execute(delete(_changes))
        session.execute(delete(_counts))
        session.execute(insert(_counts).from_select(["kind", "key", "count"], union_all(*counted)))


def _counted(kind: UserCountKind, key: ColumnElement[str]) -> Select[str, str, int]:
    return select(literal(str(kind)), key, func.count()).group_by(key)
