"""Sessions against a model of them: any order of events, in two processes that share a Redis.

The model knows each session's generation, version and ends, and from these alone what every token
is worth. Copies in Redis live for five minutes, so nothing agrees because one has run out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import redis
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.client import JsonClient
from tests.support.users import MakeUser
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.wiring.services import Services

CAP = 3
GRACE = timedelta(seconds=10)
IDLE = timedelta(days=7)
SHORT, LONG = timedelta(days=7), timedelta(days=30)
ACCESS_LIFE = timedelta(minutes=30, seconds=10)
# The clock continues to run: near an expiry the model cannot decide on which side it is.
BLUR = timedelta(seconds=3)

numbers = count(1)


@dataclass
class Refresh:
    text: str
    generation: int
    version: int
    ends_at: datetime


@dataclass
class Access:
    text: str
    version: int
    ends_at: datetime


@dataclass
class Session:
    """What the model knows of a session."""

    expires_at: datetime
    rotated_at: datetime
    generation: int = 1
    version: int = 1
    ended: bool = False
    refreshes: list[Refresh] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)

    @property
    def ends_at(self) -> datetime:
        return min(self.expires_at, self.rotated_at + IDLE)

    def is_live(self, now: datetime) -> bool:
        return not self.ended and now < self.ends_at

    def keep(self, answer: dict[str, Any], now: datetime) -> None:
        self.accesses.append(Access(answer["access_token"], self.version, now + ACCESS_LIFE))
        if self.refreshes and self.refreshes[-1].text == answer["refresh_token"]:
            return
        self.refreshes.append(
            Refresh(answer["refresh_token"], self.generation, self.version, self.expires_at)
        )


class Sessions(RuleBasedStateMachine):
    """One user, who signs in and out, and what is done to them."""

    apps: tuple[Flask, Flask]
    clock: ManualClock
    make_user: MakeUser
    redis: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.clock.reset()
        number = next(numbers)
        self.password = "heron-marble-94-lantern"
        self.user = self.make_user(f"robin-{number}", password=self.password)
        self.user_id = UUID(self.user.id)
        self.active = True
        self.roles = ["user"]
        self.failures = 0
        self.sessions: list[Session] = []

    # What the rules share

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def send(self, app: int, path: str, body: object, token: str | None = None) -> Any:
        return JsonClient(self.apps[app], token=token).post(f"/api/v1/auth/{path}", json=body)

    def administer(self, app: int, call: Callable[[Services], object]) -> None:
        with self.apps[app].app_context():
            call(self.apps[app].extensions["userapi"])

    def near(self, *moments: datetime) -> bool:
        return any(abs(self.now - moment) < BLUR for moment in moments)

    def end_all(self, but: Session | None = None) -> None:
        for session in self.sessions:
            if session is not but and session.is_live(self.now):
                session.ended = True

    def is_good(self, session: Session, access: Access) -> bool:
        return (
            session.is_live(self.now)
            and access.version == session.version
            and self.now < access.ends_at
        )

    def check(self, session: Session, access: Access, app: int) -> None:
        if self.near(session.ends_at, access.ends_at):
            return
        answer = JsonClient(self.apps[app], token=access.text).get("/api/v1/auth/verify")
        if self.is_good(session, access):
            assert answer.status_code == 200, answer.text
            assert answer.get_json()["roles"] == self.roles
        else:
            assert answer.status_code == 401, answer.text

    # What the user does

    @rule(app=st.integers(0, 1), remember_me=st.booleans())
    def log_in(self, app: int, remember_me: bool) -> None:
        body = {"username": self.user.username, "password": self.password}
        if any(self.near(session.ends_at) for session in self.sessions):
            return
        answer = self.send(app, "login", body | {"remember_me": remember_me})

        if not self.active:
            assert answer.get_json()["code"] == "account_suspended"
            return
        assert answer.status_code == 200, answer.text
        self.failures = 0
        live = [session for session in self.sessions if session.is_live(self.now)]
        for surplus in live[: max(0, len(live) - CAP + 1)]:
            surplus.ended = True
        lasts = LONG if remember_me else SHORT
        session = Session(expires_at=self.now + lasts, rotated_at=self.now)
        session.keep(answer.get_json(), self.now)
        self.sessions.append(session)

    @precondition(lambda self: self.failures < 4)
    @rule(app=st.integers(0, 1))
    def log_in_with_a_wrong_password(self, app: int) -> None:
        body = {"username": self.user.username, "password": "wrong-password-1"}
        answer = self.send(app, "login", body)

        assert answer.get_json()["code"] == "invalid_credentials"
        self.failures += 1

    @precondition(lambda self: self.sessions)
    @rule(app=st.integers(0, 1), which=st.integers(0, 9), age=st.sampled_from([0, 0, 0, 1, 1, 2]))
    def refresh(self, app: int, which: int, age: int) -> None:
        """Use the newest refresh token of a session, or an older one."""
        session = self.sessions[-1 - which % len(self.sessions)]
        token = session.refreshes[max(0, len(session.refreshes) - 1 - age)]
        if self.near(session.ends_at, token.ends_at, session.rotated_at + GRACE):
            return
        now = self.now
        answer = self.send(app, "refresh", {"refresh_token": token.text})

        body = answer.get_json()
        if now >= token.ends_at:
            assert body["code"] == "token_expired"
        elif not session.is_live(now) or token.version != session.version:
            assert body["code"] == "token_revoked"
        elif token.generation == session.generation:
            assert answer.status_code == 200, answer.text
            session.generation += 1
            session.rotated_at = now
            session.keep(body, now)
        elif token.generation == session.generation - 1 and now < session.rotated_at + GRACE:
            assert answer.status_code == 200, answer.text
            assert body["refresh_token"] == session.refreshes[-1].text
            session.keep(body, now)
        else:
            assert body["code"] == "refresh_token_reused"
            session.ended = True

    @precondition(lambda self: self.sessions)
    @rule(app=st.integers(0, 1), which=st.integers(0, 9), everywhere=st.booleans())
    def log_out(self, app: int, which: int, everywhere: bool) -> None:
        session = self.sessions[-1 - which % len(self.sessions)]
        access = session.accesses[-1]
        if self.near(access.ends_at, *(other.ends_at for other in self.sessions)):
            return
        answer = self.send(app, "logout", {"all_sessions": everywhere}, access.text)

        if self.now >= access.ends_at:
            assert answer.get_json()["code"] == "token_expired"
            return
        assert answer.status_code == 204, answer.text
        if session.is_live(self.now):
            session.ended = True
            if everywhere:
                self.end_all()

    @precondition(lambda self: self.sessions and self.failures < 4)
    @rule(app=st.integers(0, 1), which=st.integers(0, 9))
    def change_password(self, app: int, which: int) -> None:
        session = self.sessions[-1 - which % len(self.sessions)]
        access = session.accesses[-1]
        if self.near(access.ends_at, *(other.ends_at for other in self.sessions)):
            return
        new = f"granite-otter-{next(numbers)}-teapot"
        body = {"current_password": self.password, "new_password": new}
        answer = self.send(app, "change-password", body, access.text)

        if not self.is_good(session, access):
            assert answer.status_code == 401, answer.text
            return
        assert answer.status_code == 200, answer.text
        self.password, self.failures = new, 0
        self.end_all(but=session)
        session.generation += 1
        session.version += 1
        session.rotated_at = self.now
        session.keep(answer.get_json(), self.now)

    # What others do

    @precondition(lambda self: self.active)
    @rule(app=st.integers(0, 1))
    def suspend(self, app: int) -> None:
        self.administer(
            app, lambda s: s.account_suspension.suspend(self.user_id, actor=system_actor("x"))
        )
        self.active = False
        self.end_all()

    @precondition(lambda self: not self.active)
    @rule(app=st.integers(0, 1))
    def activate(self, app: int) -> None:
        self.administer(
            app, lambda s: s.account_suspension.activate(self.user_id, actor=system_actor("x"))
        )
        self.active = True

    @rule(app=st.integers(0, 1), role=st.sampled_from(["user", "moderator", "admin"]))
    def change_role(self, app: int, role: str) -> None:
        self.administer(
            app,
            lambda s: s.role_assignment.set_roles(self.user_id, [role], actor=system_actor("x")),
        )
        self.roles = [role]

    # What happens

    @rule(seconds=st.sampled_from([4, 15, 900, 1900, 86_400, 4 * 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)

    @rule()
    def empty_redis(self) -> None:
        self.redis.flushdb()

    # What must hold

    @precondition(lambda self: self.sessions)
    @rule(app=st.integers(0, 1), which=st.integers(0, 9), age=st.integers(0, 3))
    def use(self, app: int, which: int, age: int) -> None:
        session = self.sessions[-1 - which % len(self.sessions)]
        access = session.accesses[max(0, len(session.accesses) - 1 - age)]
        self.check(session, access, app)

    @invariant()
    def the_newest_tokens_are_worth_the_same_in_both_processes(self) -> None:
        for session in self.sessions[-2:]:
            for app in range(2):
                self.check(session, session.accesses[-1], app)


@pytest.mark.thorough
def test_any_order_of_events_leaves_each_token_worth_what_it_should_be(
    make_app: Callable[..., Flask], make_user: MakeUser, clock: ManualClock, redis_url: str
) -> None:
    environment = {"SESSION_CACHE_SECONDS": "300", "SESSION_MAX_PER_USER": str(CAP)}
    Sessions.apps = make_app(**environment), make_app(**environment)
    Sessions.clock = clock
    Sessions.make_user = staticmethod(make_user)
    with redis.Redis.from_url(redis_url) as Sessions.redis:
        run_state_machine_as_test(
            Sessions,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
