"""How many users there are of a kind, without counting them.

Triggers write a line into `tally_changes` in the transaction of each change, so that two who change
something never wait for one number that both count up; the worker adds the lines to `tallies` and
takes them away. Who reads adds up both in one statement and is right to the row.
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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from userapi.infrastructure.database import (
    LONG_READ_SECONDS,
    Base,
    CountingKey,
    reading,
    statement_timeout,
    table_of,
    transaction,
)

BATCH = 1000


class TallyKind(StrEnum):
    """What is counted: users by the UTC day of their last log-in, by role, and by status."""

    LAST_LOGIN_DAY = "last_login_day"
    ROLE = "role"
    STATUS = "status"


class Tally(Base):
    """How many there are of a kind, but for the changes that wait."""

    __tablename__ = "tallies"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class TallyChange(Base):
    """So many more, or fewer, of a kind. Written by triggers."""

    __tablename__ = "tally_changes"

    id: Mapped[int] = mapped_column(CountingKey, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(64))
    change: Mapped[int] = mapped_column(BigInteger)


_tallies = table_of(Tally)
_changes = table_of(TallyChange)


def tallied(kind: TallyKind, *, first: str = "") -> Select[str, int]:
    """Return the query for each key of a kind, from `first` on, and how many there are of it."""
    known = select(_tallies.c.key, _tallies.c.count).where(
        _tallies.c.kind == kind, _tallies.c.key >= first
    )
    waiting = select(_changes.c.key, _changes.c.change).where(
        _changes.c.kind == kind, _changes.c.key >= first
    )
    lines = union_all(known, waiting).subquery()
    total = func.sum(lines.c.count, type_=BigInteger).label("count")
    return select(lines.c.key, total).group_by(lines.c.key)


def counts_of(connection: Connection | Session, kind: TallyKind) -> dict[str, int]:
    """Return how many users there are by key."""
    return {key: int(count) for key, count in connection.execute(tallied(kind)) if count}


def last_logins_from(connection: Connection, first: date) -> dict[date, int]:
    """Return how many users have logged in for the last time on each day from `first` on."""
    # As text: days sort as their ISO form does.
    days = tallied(TallyKind.LAST_LOGIN_DAY, first=first.isoformat())
    return {date.fromisoformat(day): int(count) for day, count in connection.execute(days)}


def fold_user_count_changes(limit: int = 10 * BATCH) -> int:
    """Add changes that wait to the tallies, and return how many."""
    added = 0
    while added < limit:
        count = _add_up(min(BATCH, limit - added))
        if count == 0:
            break
        added += count
    return added


def _add_up(limit: int) -> int:
    with reading() as connection:
        # Most passes end here, without a transaction that would lock anything.
        if connection.execute(select(_changes.c.id).limit(1)).first() is None:
            return 0
    # Where another worker is at it, too, each takes other lines.
    lines = select(_changes).order_by(_changes.c.id).limit(limit).with_for_update(skip_locked=True)
    with transaction() as session:
        changes = session.execute(lines).all()
        sums: Counter[tuple[str, str]] = Counter()
        for line in changes:
            sums[line.kind, line.key] += line.change
        moved = [
            {"kind": kind, "key": key, "count": count}
            for (kind, key), count in sorted(sums.items())
            if count
        ]
        if moved:
            on_postgresql = session.get_bind().dialect.name == "postgresql"
            statement = (postgresql.insert if on_postgresql else sqlite.insert)(_tallies)
            session.execute(
                statement.values(moved).on_conflict_do_update(
                    index_elements=[_tallies.c.kind, _tallies.c.key],
                    set_={"count": _tallies.c.count + statement.excluded.count},
                )
            )
            session.execute(delete(_tallies).where(_tallies.c.count == 0))
        session.execute(delete(_changes).where(_changes.c.id.in_([line.id for line in changes])))
    return len(changes)


def rebuild_user_counts() -> None:
    """Count everything row by row: for a database whose rows came in past the triggers.

    Users cannot change meanwhile, two seconds at a million of them.
    """
    users = table("users", column("status"), column("last_login_at"))
    user_roles = table("user_roles", column("role_name"))
    day = cast(func.date(users.c.last_login_at), String)
    has_logged_in = users.c.last_login_at.is_not(None)
    counted = [
        _counted(TallyKind.STATUS, users.c.status),
        _counted(TallyKind.LAST_LOGIN_DAY, day).where(has_logged_in),
        _counted(TallyKind.ROLE, user_roles.c.role_name),
    ]
    with transaction() as session, statement_timeout(session, LONG_READ_SECONDS):
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("LOCK TABLE users, user_roles IN SHARE ROW EXCLUSIVE MODE"))
        session.execute(delete(_changes))
        session.execute(delete(_tallies))
        session.execute(insert(_tallies).from_select(["kind", "key", "count"], union_all(*counted)))


def _counted(kind: TallyKind, key: ColumnElement[str]) -> Select[str, str, int]:
    return select(literal(str(kind)), key, func.count()).group_by(key)
