"""Figures about users: exact, whatever is sealed, pruned or committed late."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, select

from tests.integration.test_commands import flask
from tests.support.facts import audit_rows
from tests.support.second_factors import add_app, mfa_token, second_step
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.models import User, UserStatus
from userapi.accounts.views import users
from userapi.actor import Actor, system_actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.clock import ManualClock
from userapi.infrastructure.database import new_id, reading, transaction
from userapi.roles.models import UserRole
from userapi.sessions.models import UserSession
from userapi.statistics import Figures, Statistics
from userapi.wiring.services import Services

pytestmark = pytest.mark.thorough

KINDS = [
    (AuditAction.USER_REGISTERED, Outcome.SUCCESS),
    (AuditAction.AUTH_LOGIN, Outcome.SUCCESS),
    (AuditAction.AUTH_LOGIN, Outcome.FAILURE),
    (AuditAction.AUTH_LOGIN, Outcome.DENIED),
    (AuditAction.AUTH_STEP_UP, Outcome.FAILURE),
    (AuditAction.AUTH_STEP_UP, Outcome.SUCCESS),
    (AuditAction.USER_LOCKED, Outcome.SUCCESS),
    (AuditAction.USER_UPDATED, Outcome.SUCCESS),
]
FIGURES = {
    ("user.registered", "success"): "registrations",
    ("auth.login", "success"): "logins",
    ("auth.login", "failure"): "failed_logins",
    ("auth.step_up", "failure"): "failed_logins",
    ("user.locked", "success"): "lockouts",
}


@pytest.fixture
def moderator(make_app: Callable[..., Flask], make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    """Return a client of an application that has cached no figures yet."""
    client = log_in(make_user("mod", roles=["moderator"]))
    client.app = make_app()
    return client


def stats(client: SignedInClient, clock: ManualClock, **query: Any) -> Any:
    """Return the current figures: cached ones expire after a minute."""
    clock.advance(minutes=1)
    answer = client.get("/api/v1/users/stats", query=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def record(app: Flask, clock: ManualClock, at: datetime, kind: int) -> None:
    services: Services = app.extensions["userapi"]
    action, outcome = KINDS[kind]
    now = clock.now()
    clock.set(at)
    with app.app_context(), transaction():
        services.audit.record(action, actor=Actor(), outcome=outcome)
    clock.set(now)


def naive_days(rows: list[Row[Any]], today: datetime, days: int) -> list[dict[str, Any]]:
    """Count in Python, row by row."""
    counted = Counter(
        (row.occurred_at.date(), FIGURES.get((row.action, row.outcome))) for row in rows
    )
    dates = [today.date() - timedelta(days=back) for back in reversed(range(days))]
    return [
        {"date": date.isoformat(), **{name: counted[date, name] for name in FIGURES.values()}}
        for date in dates
    ]


def test_the_answer_has_the_promised_shape(moderator: SignedInClient, clock: ManualClock) -> None:
    body = stats(moderator, clock)

    assert body.keys() == {
        "total",
        "by_status",
        "by_role",
        "locked",
        "live_sessions",
        "mfa",
        "active_users",
        "days",
    }
    assert body["total"] == 1
    assert body["by_status"] == {"active": 1, "pending": 0, "suspended": 0}
    assert body["by_role"] == {"admin": 0, "moderator": 1, "superadmin": 0, "user": 0}
    assert (body["locked"], body["live_sessions"]) == (0, 1)
    assert body["active_users"] == {"1d": 1, "7d": 1, "30d": 1}
    assert body["mfa"] == {"enabled": 0, "demanded_without": 0}
    assert len(body["days"]) == 30
    assert body["days"][-1] == {
        "date": clock.now().date().isoformat(),
        "registrations": 0,
        "logins": 1,
        "failed_logins": 0,
        "lockouts": 0,
    }


@pytest.mark.parametrize(("days", "expected"), [("1", 1), ("7", 7), ("365", 365)])
def test_the_requested_number_of_days_is_returned(
    moderator: SignedInClient, clock: ManualClock, days: str, expected: int
) -> None:
    dates = [day["date"] for day in stats(moderator, clock, days=days)["days"]]

    assert len(dates) == expected
    assert dates == sorted(dates)
    assert dates[-1] == clock.now().date().isoformat()


@pytest.mark.parametrize("days", ["0", "366", "-1", "x", "1.5", ""])
def test_other_numbers_of_days_are_refused(moderator: SignedInClient, days: str) -> None:
    answer = moderator.get("/api/v1/users/stats", query={"days": days})

    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "days")


def test_figures_need_the_permission(make_user: MakeUser, log_in: LogIn) -> None:
    answer = log_in(make_user("robin")).get("/api/v1/users/stats")

    assert (answer.status_code, answer.get_json()["permission"]) == (403, "stats:read")


def test_what_happens_over_http_is_counted(
    app: Flask, moderator: SignedInClient, clock: ManualClock, make_user: MakeUser
) -> None:
    make_user("robin")
    body = {"username": "ada", "email": "ada@example.com", "password": "copper-willow-31-harvest"}
    moderator.post("/api/v1/auth/register", json=body)
    for _ in range(6):
        moderator.post("/api/v1/auth/login", json={"username": "robin", "password": "wrong"})

    figures = stats(moderator, clock, days=1)

    assert figures["days"][0] | {"date": ""} == {
        "date": "",
        "registrations": 1,
        "logins": 1,
        "failed_logins": 5,
        "lockouts": 1,
    }


def test_wrong_codes_are_failed_log_ins_wherever_they_are_tried(
    app: Flask, moderator: SignedInClient, clock: ManualClock, make_user: MakeUser, log_in: LogIn
) -> None:
    """Guesses in a step-up were in no figure, though they feed the counter of codes."""
    robin = make_user("robin")
    phone = add_app(log_in(robin), clock)
    second_step(app, mfa_token(app, robin), "wrong")

    for _ in range(2):
        phone.client.post("/api/v1/auth/step-up", json={"code": "wrong"})

    assert stats(moderator, clock, days=1)["days"][0]["failed_logins"] == 3


def test_days_begin_and_end_at_midnight_utc(
    app: Flask, moderator: SignedInClient, clock: ManualClock
) -> None:
    midnight = datetime.combine(clock.now().date() - timedelta(days=1), time(), UTC)
    for moment in (
        midnight - timedelta(seconds=5),
        midnight,
        midnight + timedelta(days=1, seconds=-5),
    ):
        record(app, clock, moment, 0)

    for sealed in (False, True):
        if sealed:
            with app.app_context():
                app.extensions["userapi"].audit_seals.seal_due()
        days = stats(moderator, clock, days=3)["days"]
        assert [day["registrations"] for day in days] == [1, 2, 0]


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.floats(0, 400, allow_nan=False), st.integers(0, len(KINDS) - 1)
            ),  # a row so many days ago
            st.integers(1, 5),  # seal up to so many rows
        ),
        max_size=25,
    ),
    days=st.integers(1, 365),
)
def test_days_are_right_to_the_row_whatever_is_sealed(
    app: Flask, clock: ManualClock, steps: list[Any], days: int
) -> None:
    services: Services = app.extensions["userapi"]
    for step in steps:
        if isinstance(step, int):
            with app.app_context():
                services.audit_seals.seal_due(limit=step)
        else:
            record(app, clock, clock.now() - timedelta(days=step[0]), step[1])

    figures = fresh(app)(days)

    shown = [
        {
            "date": day.date.isoformat(),
            "registrations": day.registrations,
            "logins": day.logins,
            "failed_logins": day.failed_logins,
            "lockouts": day.lockouts,
        }
        for day in figures.days
    ]
    assert shown == naive_days(list(audit_rows(app)), clock.now(), days)


def fresh(app: Flask) -> Callable[[int], Figures]:
    """Return statistics that count again at each call."""
    services: Services = app.extensions["userapi"]

    def figures(days: int) -> Figures:
        with app.app_context():
            return Statistics(
                clock=services.clock, sessions=services.sessions, mfa=services.mfa_figures
            ).figures(days)

    return figures


def test_totals_are_right_to_the_row(app: Flask, clock: ManualClock) -> None:
    chance = random.Random(20260202)
    now = clock.now()
    populate(app, chance, now)

    figures = fresh(app)(1)

    with app.app_context(), reading() as connection:
        everybody = connection.execute(select(users)).all()
        roles = connection.execute(select(UserRole.role_name)).scalars().all()
        sessions = connection.execute(select(UserSession.__table__)).all()
    statuses = Counter(user.status for user in everybody)
    assert figures.total == len(everybody) == 120
    assert figures.by_status == {str(s): statuses[s] for s in sorted(UserStatus)}
    assert Counter(figures.by_role) == Counter(roles)
    assert figures.locked == sum(bool(u.locked_until and u.locked_until > now) for u in everybody)
    for name, days in (("1d", 1), ("7d", 7), ("30d", 30)):
        since = now - timedelta(days=days)
        active = [u for u in everybody if u.last_login_at and u.last_login_at > since]
        assert figures.active_users[name] == len(active)
    idle = now - timedelta(days=7)
    live = [
        s for s in sessions if s.revoked_at is None and s.expires_at > now and s.rotated_at > idle
    ]
    assert figures.live_sessions == len(live)
    assert 0 < len(live) < len(sessions)


def populate(app: Flask, chance: random.Random, now: datetime) -> None:
    """Add users and sessions in every state."""
    with app.app_context(), transaction() as session:
        for number in range(120):
            name = f"u{number:03d}"
            user = User(
                id=new_id(),
                username=name,
                email=f"{name}@example.com",
                email_normalized=f"{name}@example.com",
                status=chance.choice(list(UserStatus)),
                created_at=now,
                updated_at=now,
                locked_until=chance.choice([None, now - timedelta(1), now + timedelta(1)]),
                last_login_at=chance.choice(
                    [None, *(now - timedelta(days=d, minutes=-5) for d in (1, 2, 7, 8, 30, 31))]
                ),
            )
            session.add(user)
            session.flush()
            for role in chance.sample(["user", "moderator", "admin"], chance.randint(1, 3)):
                session.add(UserRole(user_id=user.id, role_name=role))
            rotated = now - timedelta(days=chance.choice([0, 3, 8]))
            session.add(
                UserSession(
                    id=new_id(),
                    user_id=user.id,
                    rotated_at=rotated,
                    created_at=rotated,
                    last_used_at=rotated,
                    expires_at=now + timedelta(days=chance.choice([-1, 1, 20])),
                    revoked_at=chance.choice([None, None, now]),
                )
            )


class SlowSessions:
    """Counts sessions as slowly as a large database does, and counts its calls."""

    def __init__(self) -> None:
        self.asked = 0
        self.waiting = threading.Event()

    def count_live_now(self, _connection: Any) -> int:
        self.asked += 1
        self.waiting.wait(0.3)
        return self.asked


def test_expensive_figures_are_cached_for_less_than_a_minute(
    app: Flask, clock: ManualClock
) -> None:
    slow = SlowSessions()
    services: Services = app.extensions["userapi"]
    statistics = Statistics(
        clock=clock,
        sessions=slow,  # type: ignore[arg-type]
        mfa=services.mfa_figures,
    )
    seen = []

    with app.app_context():
        for seconds in (0, 20, 40):
            clock.advance(seconds=seconds)
            seen.append(statistics.figures(1).live_sessions)

    assert seen == [1, 1, 2]


def test_concurrent_requests_cause_one_count(app: Flask, clock: ManualClock) -> None:
    slow = SlowSessions()
    services: Services = app.extensions["userapi"]
    statistics = Statistics(
        clock=clock,
        sessions=slow,  # type: ignore[arg-type]
        mfa=services.mfa_figures,
    )

    def ask(_: int) -> int:
        with app.app_context():
            return statistics.figures(1).live_sessions

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))

    assert set(answers) <= {1, 2}
    assert slow.asked <= 2


def test_rows_sealed_during_a_count_are_counted_once(app: Flask, clock: ManualClock) -> None:
    """Sealing moves rows from the unsealed ones to the counts while the figures are read."""
    services: Services = app.extensions["userapi"]
    with app.app_context(), transaction():
        for _ in range(200):
            services.audit.record(AuditAction.USER_REGISTERED, actor=system_actor("tests"))

    def seal() -> None:
        with app.app_context():
            while services.audit_seals.seal_due(limit=5):
                pass

    with ThreadPoolExecutor(1) as pool:
        sealing = pool.submit(seal)
        seen = []
        while not sealing.done():
            seen.append(fresh(app)(1).days[-1].registrations)
        sealing.result()

    assert set(seen) == {200}


def test_the_command_prints_tables_with_bars(
    app: Flask, moderator: SignedInClient, clock: ManualClock
) -> None:
    clock.advance(minutes=1)
    record(app, clock, clock.now(), 0)

    result = flask(app, "users", "stats", "--days", "2")

    assert result.exit_code == 0, result.output
    assert "moderator" in result.output
    assert "Live sessions: 1" in result.output
    last = result.output.splitlines()[-1]
    assert last.startswith(clock.now().date().isoformat())
    assert "████████████" in last
