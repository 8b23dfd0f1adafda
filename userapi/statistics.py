"""Statistics about users and their activity.

They are exact: a row of the audit log is either sealed, and was counted in `audit_daily_counts` in
the transaction of its seal, whatever its date; or it waits for its seal and is counted here, in
the same statement. Past days are a few rows of a summary, which pruning does not change, and only
the rows of about the last second are counted one by one.

Users are counted as they change, by `userapi.infrastructure.user_counts`. Of their activity only
the first day of a span is read row by row, by an index. Live sessions are counted by an index, too.
Expensive statistics are cached, never longer than `MAX_TTL`.
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
from userapi.factors.figures import MfaCounts, MfaFigures
from userapi.infrastructure.database import counting, table_of
from userapi.infrastructure.user_counts import UserCountKind, counts_of, last_logins_from
from userapi.roles.models import Role
from userapi.sessions.service import Sessions

MAX_DAYS = 365
MIDNIGHT = time_of_day()
ACTIVE_SPANS = {"1d": 1, "7d": 7, "30d": 30}
# Statistics are cached for 100 times as long as they took, so counting never takes more than a
# hundredth of a process's time. Cheap ones are not cached.
TTL_PER_SECOND = 100
CHEAP_SECONDS = 0.1
MAX_TTL = timedelta(seconds=55)

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_counts = table_of(AuditDailyCount)
_roles = table_of(Role)

# What each figure of a day counts. A denied log-in had the right password, so it did not fail. A
# wrong code is a failed log-in wherever it is tried: a step-up feeds the same counter as a log-in.
DAILY_FIGURES = {
    (AuditAction.USER_REGISTERED, Outcome.SUCCESS): "registrations",
    (AuditAction.AUTH_LOGIN, Outcome.SUCCESS): "logins",
    (AuditAction.AUTH_LOGIN, Outcome.FAILURE): "failed_logins",
    (AuditAction.AUTH_STEP_UP, Outcome.FAILURE): "failed_logins",
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
    """All statistics. Active users have logged in within the span; a refresh is no log-in."""

    total: int
    by_status: Mapping[str, int]
    by_role: Mapping[str, int]
    locked: int
    live_sessions: int
    active_users: Mapping[str, int]
    mfa: MfaCounts
    days: tuple[DayFigures, ...]


@dataclass(frozen=True, slots=True)
class _Cached:
    number: int
    figures: Figures
    counted_at: datetime
    expires_at: datetime


class Statistics:
    """Counts in one thread at a time; concurrent callers get the same result."""

    def __init__(self, *, clock: Clock, sessions: Sessions, mfa: MfaFigures) -> None:
        self._clock = clock
        self._sessions = sessions
        self._mfa = mfa
        self._counting = threading.Lock()
        self._started = 0
        self._cached: _Cached | None = None

    def figures(self, days: int = 30) -> Figures:
        """Return the statistics of the last `days` UTC days, including today, oldest first."""
        figures = self._fresh() or self._counted_once()
        return replace(figures, days=figures.days[-days:])

    def drop_cached(self) -> None:
        """Count again at the next call, however expensive the last one was."""
        self._cached = None

    def _fresh(self) -> Figures | None:
        cached, now = self._cached, self._clock.now()
        return cached.figures if cached and cached.counted_at <= now < cached.expires_at else None

    def _counted_once(self) -> Figures:
        started_before = self._started
        with self._counting:
            cached = self._cached
            if cached is not None and cached.number > started_before:
                return cached.figures  # Another thread has started and finished since the call.
            self._started = number = self._started + 1
            counted_at = self._clock.now()
            begun = time.perf_counter()
            figures = self._count(counted_at)
            cost = time.perf_counter() - begun
            ttl = timedelta(seconds=cost * TTL_PER_SECOND if cost > CHEAP_SECONDS else 0)
            self._cached = _Cached(number, figures, counted_at, counted_at + min(ttl, MAX_TTL))
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
                mfa=self._mfa.counts(connection),
                days=_days(connection, now.date()),
            )


def _count_of(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(users).where(*conditions).scalar_subquery()


def _active(connection: Connection, now: datetime) -> dict[str, int]:
    """Count the users with a log-in in each span. Only rows of its first day are read."""
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
        for name, on_first_day in zip(begins, on_first_days, strict=True)
    }


def _days(connection: Connection, today: date) -> tuple[DayFigures, ...]:
    first = today - timedelta(days=MAX_DAYS - 1)
    actions = sorted({action for action, _ in DAILY_FIGURES})
    day = func.date(_logs.c.occurred_at, type_=Date)
    # One statement: a row that is sealed at the same time is counted once even without a snapshot.
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
