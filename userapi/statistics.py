"""Figures about users and what they do.

Right to the row at any moment: a row of the audit log is either sealed, and then it was counted
into `audit_daily_counts` in the transaction that sealed it, whatever its date; or it still waits
for its seal and is counted here, in the same statement. Past days cost a few rows of a summary,
pruning takes nothing from them, and only the rows of about the last second are looked at one by
one.

Users are counted as they change, by `userapi.infrastructure.user_counts`; of activity only the
first day of a span is read row by row, by an index. Live sessions are counted by an index, too.
Expensive figures are cached for some time: never longer than `MAX_KEPT`.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    ScalarSelect,
    func,
    select,
    union_all,
)

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditDailyCount, AuditLog, AuditUnsealed
from userapi.clock import Clock
from userapi.infrastructure.database import (
    counting,
    table_of,
)
from userapi.infrastructure.user_counts import UserCountKind, counts_of, last_logins_from
from userapi.roles.models import Role
from userapi.sessions.service import Sessions

MAX_DAYS = 365
MIDNIGHT = time_of_day()
ACTIVE_SPANS = {"1d": 1, "7d": 7, "30d": 30}
# Counting may take one part in a hundred of a process's time; what was cheap is never kept.
KEPT_FOR_TIMES = 100
CHEAP_SECONDS = 0.1
MAX_KEPT = timedelta(seconds=55)

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_counts = table_of(AuditDailyCount)
_roles = table_of(Role)

# What each figure of a day counts. A denied log-in had the right password and is no failed one.
DAILY_FIGURES = {
    (AuditAction.USER_REGISTERED, Outcome.SUCCESS): "registrations",
    (AuditAction.AUTH_LOGIN, Outcome.SUCCESS): "logins",
    (AuditAction.AUTH_LOGIN, Outcome.FAILURE): "failed_logins",
    (AuditAction.USER_LOCKED, Outcome.SUCCESS): "lockouts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFigures:
    """What happened on one UTC day."""

    date: date
    registrations: int = 0
    logins: int = 0
    failed_logins: int = 0
    lockouts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All figures. Active is who has logged in within the span; refreshing is not logging in."""

    total: int
    by_status: Mapping[str, int]
    by_role: Mapping[str, int]
    locked: int
    live_sessions: int
    active_users: Mapping[str, int]
    days: tuple[DayFigures, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    figures: Figures
    counted_at: datetime
    until: datetime


class Statistics:
    """Counts, one at a time in a process: who asks meanwhile gets the same answer."""

    def __init__(self, *, clock: Clock, sessions: Sessions) -> None:
        self._clock = clock
        self._sessions = sessions
        self._counting = threading.Lock()
        self._begun = 0
        self._kept: _Kept | None = None

    def figures(self, days: int = 30) -> Figures:
        """Return the figures with the last `days` UTC days, today included, the oldest first."""
        figures = self._fresh() or self._counted_once()
        return replace(figures, days=figures.days[-days:])

    def _fresh(self) -> Figures | None:
        kept, now = self._kept, self._clock.now()
        return kept.figures if kept and kept.counted_at <= now < kept.until else None

    def _counted_once(self) -> Figures:
        begun_before = self._begun
        with self._counting:
            kept = self._kept
            if kept is not None and kept.number > begun_before:
                return kept.figures  # Somebody else began after we had asked, and is ready now.
            self._begun = number = self._begun + 1
            counted_at = self._clock.now()
            begun = time.perf_counter()
            figures = self._count(counted_at)
            cost = time.perf_counter() - begun
            keep = timedelta(seconds=cost * KEPT_FOR_TIMES if cost > CHEAP_SECONDS else 0)
            self._kept = _Kept(number, figures, counted_at, counted_at + min(keep, MAX_KEPT))
            return figures

    def _count(self, now: datetime) -> Figures:
        with counting() as connection:
            by_status = dict.fromkeys(map(str, UserStatus), 0)
            by_status |= counts_of(connection, UserCountKind.STATUS)
            by_role = dict.fromkeys(connection.execute(select(_roles.c.name)).scalars(), 0)
            by_role |= counts_of(connection, UserCountKind.ROLE)
            locked = _count_of(users.c.locked_until > now)
            return Figures(
                total=sum(by_status.values()),
                by_status=dict(sorted(by_status.items())),
                by_role=dict(sorted(by_role.items())),
                locked=connection.execute(select(locked)).scalar_one(),
                live_sessions=self._sessions.count_live_now(connection),
                active_users=_active(connection, now),
                days=_days(connection, now.date()),
            )


def _count_of(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(users).where(*conditions).scalar_subquery()


def _active(connection: Connection, now: datetime) -> dict[str, int]:
    """Count who has logged in within each span. Only in its first day rows are looked at."""
    begins = {name: now - timedelta(days=span) for name, span in ACTIVE_SPANS.items()}
    next_days = {name: begin.date() + timedelta(days=1) for name, begin in begins.items()}
    by_day = last_logins_from(connection, min(next_days.values()))
    on_first_days = connection.execute(
        select(
            *(
                _count_of(
                    users.c.last_login_at > begin,
                    users.c.last_login_at < datetime.combine(next_days[name], MIDNIGHT, UTC),
                ).label(name)
                for name, begin in begins.items()
            )
        )
    ).one()
    return {
        name: on_first_day + sum(count for day, count in by_day.items() if day >= next_days[name])
        for name, on_first_day in on_first_days._mapping.items()
    }


def _days(connection: Connection, today: date) -> tuple[DayFigures, ...]:
    first = today - timedelta(days=MAX_DAYS - 1)
    actions = sorted({action for action, _ in DAILY_FIGURES})
    day = func.date(_logs.c.occurred_at, type_=Date)
    # One statement: even without the snapshot a row that is sealed meanwhile is counted once.
    sealed = select(_counts.c.day, _counts.c.action, _counts.c.outcome, _counts.c.count).where(
        _counts.c.day >= first, _counts.c.action.in_(actions)
    )
    waiting = (
        select(day, _logs.c.action, _logs.c.outcome, func.count())
        .join(_unsealed, _unsealed.c.audit_id == _logs.c.id)
        .where(_logs.c.action.in_(actions))
        .group_by(day, _logs.c.action, _logs.c.outcome)
    )
    by_day: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for on, action, outcome, count in connection.execute(union_all(sealed, waiting)):
        figure = DAILY_FIGURES.get((action, outcome))
        if figure is not None:
            by_day[on][figure] += count
    return tuple(
        DayFigures(date=on, **by_day.get(on, {}))
        for on in (first + timedelta(days=number) for number in range(MAX_DAYS))
    )
