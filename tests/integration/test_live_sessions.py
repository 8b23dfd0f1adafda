"""Whether a session is live: with copies in Redis, across processes, and when Redis is away."""

from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any
from uuid import UUID

import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.servers import RedisServer
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock
from userapi.expiring_store import Redis
from userapi.sessions.cache import RedisLiveSessions
from userapi.sessions.status import LiveSession
from userapi.settings import Settings

VERIFY = "/api/v1/auth/verify"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def elsewhere(make_app: Callable[..., Flask]) -> Flask:
    """Another process of the same service."""
    return make_app()


def there(app: Flask, session: SignedInClient) -> int:
    """Return what a session's token gets from another process."""
    return int(JsonClient(app, token=session.access_token).get(VERIFY).status_code)


def test_a_copy_is_used_and_costs_one_round_trip(
    app: Flask, robin: MadeUser, log_in: LogIn, redis_url: str
) -> None:
    session = log_in(robin)
    session.get(VERIFY)
    client = redis.Redis.from_url(redis_url)
    before = client.info("commandstats").get("cmdstat_mget", {}).get("calls", 0)

    for _ in range(5):
        assert session.get(VERIFY).status_code == 200

    after = client.info("commandstats")["cmdstat_mget"]["calls"]
    assert after - before == 5
    client.close()


def _suspend(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> None:
    boss.post(f"/api/v1/users/{robin.id}/suspend")


def _log_out(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> None:
    session.post("/api/v1/auth/logout")


def _change_password(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> None:
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}
    session.post("/api/v1/auth/change-password", json=body)


def _delete(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> None:
    boss.delete(f"/api/v1/users/{robin.id}")


@pytest.mark.parametrize("revoke", [_suspend, _log_out, _change_password, _delete])
def test_a_revocation_holds_at_once_in_another_process(
    elsewhere: Flask,
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
    revoke: Callable[[SignedInClient, MadeUser, SignedInClient], None],
) -> None:
    boss, session = log_in(make_user("boss", roles=["admin"])), log_in(robin)
    assert [there(elsewhere, session) for _ in range(2)] == [200, 200]

    revoke(boss, robin, session)

    assert there(elsewhere, session) == 401


def test_a_role_holds_at_once_in_another_process(
    elsewhere: Flask, robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    boss, session = log_in(make_user("boss", roles=["admin"])), log_in(robin)
    remote = JsonClient(elsewhere, token=session.access_token)
    assert [remote.get("/api/v1/users/").status_code for _ in range(2)] == [403, 403]

    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})

    assert remote.get("/api/v1/users/").status_code == 200


def test_an_emptied_redis_ends_nothing_and_brings_nothing_back(
    robin: MadeUser, log_in: LogIn, redis_url: str
) -> None:
    live, ended = log_in(robin), log_in(robin)
    live.get(VERIFY), ended.get(VERIFY)
    ended.post("/api/v1/auth/logout")

    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    client.close()

    assert (live.get(VERIFY).status_code, ended.get(VERIFY).status_code) == (200, 401)


class SlowDatabase:
    """A database whose answer waits until it is let go, as under load."""

    def __init__(self, live: LiveSession) -> None:
        self._live = live
        self.has_read = Barrier(2)
        self.may_answer = Barrier(2)

    def find(self, session_id: UUID, *, user_id: UUID) -> LiveSession | None:
        self.has_read.wait(10)
        self.may_answer.wait(10)
        return self._live

    def session_changed(self, session_id: UUID, *, version: int, live: bool) -> None:
        """Nothing is kept here."""

    def user_changed(self, user_id: UUID, *, access_version: int) -> None:
        """Nothing is kept here."""

    def roles_changed(self, *, catalogue_version: int) -> None:
        """Nothing is kept here."""


class FixedDatabase(SlowDatabase):
    """A database that answers at once."""

    def find(self, session_id: UUID, *, user_id: UUID) -> LiveSession | None:
        return None


@pytest.mark.parametrize("what", ["session", "user"])
def test_a_fill_that_was_overtaken_by_a_revocation_is_refused(what: str, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    clock = ManualClock()
    session_id, user_id = UUID(int=1), UUID(int=2)
    stale = LiveSession(
        session_id=session_id,
        user_id=user_id,
        username="robin",
        roles=("user",),
        session_version=1,
        access_version=1,
        catalogue_version=1,
        must_change_password=False,
        ends_at=clock.now() + timedelta(days=1),
    )
    settings = Settings(session_cache_seconds=60)
    slow = SlowDatabase(stale)
    filling = RedisLiveSessions(settings, clock, store=Redis(redis_url), database=slow)
    thread = Thread(target=lambda: filling.find(session_id, user_id=user_id))
    thread.start()
    slow.has_read.wait(10)  # The fill has read the old state and is about to store it.

    revoking = RedisLiveSessions(
        settings, clock, store=Redis(redis_url), database=FixedDatabase(stale)
    )
    if what == "session":
        revoking.session_changed(session_id, version=2, live=False)
    else:
        revoking.user_changed(user_id, access_version=2)
    slow.may_answer.wait(10)
    thread.join(10)

    assert revoking.find(session_id, user_id=user_id) is None
    client.flushdb()
    client.close()


def test_a_dead_redis_is_not_noticed_by_callers(
    private_server: Callable[[type[RedisServer]], RedisServer],
    make_app: Callable[..., Flask],
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    server = private_server(RedisServer)
    app, session = make_app(REDIS_URL=server.url), log_in(robin)
    boss = log_in(make_user("boss", roles=["admin"]))
    assert there(app, session) == 200

    server.stop()

    assert [there(app, session) for _ in range(5)] == [200] * 5
    boss.post(f"/api/v1/users/{robin.id}/suspend")
    assert there(app, session) == 401
    server.start()


def test_a_frozen_redis_costs_one_time_out_and_not_one_a_request(
    private_server: Callable[[type[RedisServer]], RedisServer],
) -> None:
    server = private_server(RedisServer)
    store = Redis(server.url)
    asked: list[Any] = []

    def question(client: redis.Redis) -> Any:
        asked.append(1)
        return client.ping()

    assert store.ask(question) is True
    server.pause()
    try:
        answers = [store.ask(question) for _ in range(20)]
    finally:
        server.resume()

    assert answers == [None] * 20
    assert len(asked) == 2  # One before, and one that found out.
