"""Figures about users and what they do.

Right to the row at any moment: a row of the audit log is either sealed, and then it was counted
into `audit_daily_counts` in the transaction that sealed it, whatever its date; or it still waits
for its seal and is counted here, in the same statement. Past days cost a few rows of a summary,
pruning takes nothing from them, and only the rows of about the last second are looked at one by
one.

Totals are counted by indexes alone. At a million users that still takes a while, so figures that
were dear are kept for some time: never longer than `LONGEST_KEPT`.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Date, Select, Table, func, select, union_all

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditDailyCount, AuditLog, AuditUnsealed
from userapi.clock import Clock
from userapi.database import counting
from userapi.roles.models import Role, UserRole
from userapi.sessions.service import Sessions

MOST_DAYS = 365
ACTIVE_SPANS = {"1d": 1, "7d": 7, "30d": 30}
# Counting may take one part in a hundred of a process's time; what was cheap is never kept.
KEPT_FOR_TIMES = 100
CHEAP_SECONDS = 0.1
LONGEST_KEPT = timedelta(seconds=55)

_logs: Table = AuditLog.__table__  # type: ignore[assignment]
_unsealed: Table = AuditUnsealed.__table__  # type: ignore[assignment]
_counts: Table = AuditDailyCount.__table__  # type: ignore[assignment]
_roles: Table = Role.__table__  # type: ignore[assignment]
_user_roles: Table = UserRole.__table__  # type: ignore[assignment]

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
            self._kept = _Kept(number, figures, counted_at, counted_at + min(keep, LONGEST_KEPT))
            return figures

    def _count(self, now: datetime) -> Figures:
        with counting() as connection:
            by_status = dict.fromkeys(map(str, UserStatus), 0)
            by_status |= _pairs(
                connection, select(users.c.status, func.count()).group_by(users.c.status)
            )
            by_role = dict.fromkeys(connection.execute(select(_roles.c.name)).scalars(), 0)
            by_role |= _pairs(
                connection,
                select(_user_roles.c.role_name, func.count()).group_by(_user_roles.c.role_name),
            )
            return Figures(
                total=sum(by_status.values()),
                by_status=dict(sorted(by_status.items())),
                by_role=dict(sorted(by_role.items())),
                locked=_number(connection, users.c.locked_until > now),
                live_sessions=self._sessions.count_live_now(connection),
                active_users={
                    name: _number(connection, users.c.last_login_at > now - timedelta(days=span))
                    for name, span in ACTIVE_SPANS.items()
                },
                days=_days(connection, now.date()),
            )


def _number(connection: Connection, condition: Any) -> int:
    query = select(func.count()).select_from(users).where(condition)
    return int(connection.execute(query).scalar_one())


def _pairs(connection: Connection, query: Select[Any]) -> dict[str, int]:
    return {name: count for name, count in connection.execute(query)}


def _days(connection: Connection, today: date) -> tuple[DayFigures, ...]:
    first = today - timedelta(days=MOST_DAYS - 1)
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
        for on in (first + timedelta(days=number) for number in range(MOST_DAYS))
    )
