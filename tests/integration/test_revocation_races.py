"""A revocation applies to the next request in every process: with a concurrent fill, with Redis
emptied in between, and with Redis unreachable.

The other process is another application on the same database and Redis. Copies live for five
minutes unless a test sets another time, so no test depends on the expiry of one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event, Thread
from uuid import UUID

import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy, proxy_to, url_through
from tests.support.redis_keys import forget_previous_keys, session_key_of
from tests.support.servers import RedisServer
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.accounts.views import ShownUsers
from userapi.clock import ManualClock
from userapi.infrastructure.circuit_breaker import CircuitBreaker
from userapi.infrastructure.redis_client import Redis
from userapi.infrastructure.redis_commands import command
from userapi.sessions.cache import RedisLiveSessions
from userapi.sessions.copy_store import Place, owner_key
from userapi.sessions.status import DatabaseLiveSessions, LiveSession, SessionOfUser
from userapi.wiring.services import Services

VERIFY = "/api/v1/auth/verify"
LONG = "300"
IDLE_TIMEOUT = timedelta(days=7)

Revoke = Callable[[SignedInClient, MadeUser, SignedInClient], object]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """Return the process in which sessions are revoked."""
    return make_app(SESSION_CACHE_SECONDS=LONG)


@pytest.fixture
def elsewhere(make_app: Callable[..., Flask]) -> Flask:
    """Return another process of the same service."""
    return make_app(SESSION_CACHE_SECONDS=LONG)


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def boss(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["superadmin"]))


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def proxy(redis_url: str) -> Iterator[FaultProxy]:
    """Return a proxy between Redis and one process."""
    proxy = proxy_to(redis_url)
    yield proxy
    proxy.close()


def verify(app: Flask, session: SignedInClient) -> int:
    """Return the status of a process for a session's token."""
    return int(JsonClient(app, token=session.access_token).get(VERIFY).status_code)


def copy_of(server: redis.Redis, session: SignedInClient) -> bytes:
    """Return the copy of a session in Redis."""
    copy = server.get(session_key_of(server, session.session_id))
    assert isinstance(copy, bytes)
    return copy


def suspend(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> object:
    return boss.post(f"/api/v1/users/{robin.id}/suspend")


def delete(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> object:
    return boss.delete(f"/api/v1/users/{robin.id}")


def end_sessions(boss: SignedInClient, robin: MadeUser, _session: SignedInClient) -> object:
    return boss.delete(f"/api/v1/users/{robin.id}/sessions")


def log_out(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> object:
    return session.post("/api/v1/auth/logout")


def change_password(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> object:
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}
    return session.post("/api/v1/auth/change-password", json=body)


def reuse_refresh_token(_boss: SignedInClient, _robin: MadeUser, session: SignedInClient) -> object:
    token = session.refresh_token
    for _ in range(2):
        answer = session.post("/api/v1/auth/refresh", json={"refresh_token": token})
        token = answer.get_json()["refresh_token"]
    return session.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})


REVOCATIONS: list[Revoke] = [
    suspend,
    delete,
    end_sessions,
    log_out,
    change_password,
    reuse_refresh_token,
]


# Without a race


@pytest.mark.parametrize("revoke", REVOCATIONS)
def test_a_revocation_holds_at_once_in_another_process(
    elsewhere: Flask, robin: MadeUser, boss: SignedInClient, log_in: LogIn, revoke: Revoke
) -> None:
    session = log_in(robin)
    assert [verify(elsewhere, session) for _ in range(2)] == [200, 200]

    revoke(boss, robin, session)

    assert verify(elsewhere, session) == 401


def test_the_tokens_of_a_changed_password_are_good_at_once_in_another_process(
    app: Flask, elsewhere: Flask, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)
    verify(elsewhere, session)

    answer = session.post(
        "/api/v1/auth/change-password",
        json={"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"},
    )

    assert verify(elsewhere, SignedInClient(app, answer.get_json())) == 200


@pytest.mark.thorough
def test_another_role_of_a_user_holds_at_once_in_another_process(
    elsewhere: Flask, robin: MadeUser, boss: SignedInClient, log_in: LogIn
) -> None:
    remote = JsonClient(elsewhere, token=log_in(robin).access_token)
    assert [remote.get("/api/v1/users/").status_code for _ in range(2)] == [403, 403]

    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})
    granted = remote.get("/api/v1/users/").status_code
    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["user"]})

    assert (granted, remote.get("/api/v1/users/").status_code) == (200, 403)


def test_what_a_role_grants_holds_at_once_in_another_process(
    elsewhere: Flask, make_user: MakeUser, boss: SignedInClient, log_in: LogIn
) -> None:
    boss.post("/api/v1/roles/", json={"name": "reader", "permissions": []})
    session = log_in(make_user("ray", roles=["reader"]))
    remote = JsonClient(elsewhere, token=session.access_token)
    assert [remote.get("/api/v1/users/").status_code for _ in range(2)] == [403, 403]

    boss.put("/api/v1/roles/reader", json={"permissions": ["users:read"]})
    granted = remote.get("/api/v1/users/").status_code
    boss.put("/api/v1/roles/reader", json={"permissions": []})

    assert (granted, remote.get("/api/v1/users/").status_code) == (200, 403)


def test_a_copy_is_used_and_costs_one_round_trip(
    make_app: Callable[..., Flask],
    robin: MadeUser,
    log_in: LogIn,
    private_server: Callable[[type[RedisServer]], RedisServer],
) -> None:
    # A server of its own: its counts are of all who use it.
    url = private_server(RedisServer).url
    app, server, session = make_app(REDIS_URL=url), redis.Redis.from_url(url), log_in(robin)
    verify(app, session)
    before = server.info("commandstats")["cmdstat_evalsha"]["calls"]
    looked_up = server.info("commandstats")["cmdstat_mget"]["calls"]

    assert [verify(app, session) for _ in range(5)] == [200] * 5

    after = server.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] - before == 5
    assert after["cmdstat_mget"]["calls"] - looked_up == 5
    server.close()


def test_an_emptied_redis_ends_nothing_and_brings_nothing_back(
    app: Flask, robin: MadeUser, log_in: LogIn, server: redis.Redis
) -> None:
    live, ended = log_in(robin), log_in(robin)
    assert (verify(app, live), verify(app, ended)) == (200, 200)
    ended.post("/api/v1/auth/logout")

    server.flushdb()

    assert (verify(app, live), verify(app, ended)) == (200, 401)


@pytest.mark.thorough
@pytest.mark.parametrize("pattern", ["userapi:live:*:u:*", "userapi:live:*:roles"])
def test_a_copy_without_its_versions_is_not_trusted(
    elsewhere: Flask,
    robin: MadeUser,
    boss: SignedInClient,
    log_in: LogIn,
    server: redis.Redis,
    pattern: str,
) -> None:
    """A Redis without free memory may evict any key."""
    session = log_in(robin)
    verify(elsewhere, session)
    copy = copy_of(server, session)
    suspend(boss, robin, session)

    server.set(session_key_of(server, session.session_id), copy)
    forget_previous_keys(server)
    for key in server.scan_iter(pattern):
        server.delete(key)

    assert verify(elsewhere, session) == 401


# A fill that races with a revocation


class PausingDatabase(DatabaseLiveSessions):
    """A database that pauses between the read and the return of its result."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, ShownUsers(), idle_timeout=IDLE_TIMEOUT)
        self.has_read = Event()
        self.may_return = Event()

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        live = super().find(session_id, user_id=user_id, session_version=session_version)
        self.has_read.set()
        assert self.may_return.wait(10)
        return live


@dataclass
class Filling:
    """A request in another process that has read the database and has not stored its copy yet."""

    thread: Thread
    database: PausingDatabase
    found: list[LiveSession | None] = field(default_factory=list)

    def finish(self) -> None:
        self.database.may_return.set()
        self.thread.join(10)


@pytest.fixture
def begin_to_fill(
    elsewhere: Flask, redis_url: str, clock: ManualClock
) -> Callable[[SignedInClient, MadeUser], Filling]:
    def begin(session: SignedInClient, user: MadeUser) -> Filling:
        database = PausingDatabase(clock)
        live = RedisLiveSessions(
            clock,
            copy_seconds=int(LONG),
            lookups=Redis(redis_url, timeout_seconds=5),
            invalidations=Redis(redis_url),
            database=database,
        )

        def fill() -> None:
            with elsewhere.app_context():
                filling.found.append(
                    live.find(UUID(session.session_id), user_id=UUID(user.id), session_version=1)
                )

        filling = Filling(Thread(target=fill), database)
        filling.thread.start()
        assert database.has_read.wait(10)
        return filling

    return begin


BeginToFill = Callable[[SignedInClient, MadeUser], Filling]


@pytest.mark.thorough
@pytest.mark.parametrize("emptied", [False, True], ids=["", "and Redis is emptied"])
@pytest.mark.parametrize("revoke", REVOCATIONS)
def test_a_fill_that_is_overtaken_by_a_revocation_is_rejected(
    elsewhere: Flask,
    robin: MadeUser,
    boss: SignedInClient,
    log_in: LogIn,
    begin_to_fill: BeginToFill,
    server: redis.Redis,
    revoke: Revoke,
    emptied: bool,
) -> None:
    session = log_in(robin)
    filling = begin_to_fill(session, robin)

    revoke(boss, robin, session)
    if emptied:
        server.flushdb()
    filling.finish()

    assert filling.found[0] is not None  # It was live when it was read.
    assert verify(elsewhere, session) == 401


def test_a_fill_that_is_overtaken_by_a_change_of_roles_is_rejected(
    elsewhere: Flask,
    robin: MadeUser,
    boss: SignedInClient,
    log_in: LogIn,
    begin_to_fill: BeginToFill,
) -> None:
    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})
    session = log_in(robin)
    filling = begin_to_fill(session, robin)

    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["user"]})
    filling.finish()

    assert filling.found[0] is not None and filling.found[0].roles == ("moderator",)
    remote = JsonClient(elsewhere, token=session.access_token)
    assert remote.get("/api/v1/users/").status_code == 403


def test_a_fill_that_is_overtaken_by_a_change_of_the_catalogue_is_rejected(
    elsewhere: Flask,
    make_user: MakeUser,
    boss: SignedInClient,
    log_in: LogIn,
    begin_to_fill: BeginToFill,
) -> None:
    boss.post("/api/v1/roles/", json={"name": "reader", "permissions": ["users:read"]})
    ray = make_user("ray", roles=["reader"])
    session = log_in(ray)
    filling = begin_to_fill(session, ray)

    boss.put("/api/v1/roles/reader", json={"permissions": []})
    filling.finish()

    remote = JsonClient(elsewhere, token=session.access_token)
    assert remote.get("/api/v1/users/").status_code == 403


def test_a_fill_without_a_concurrent_change_is_stored(
    elsewhere: Flask,
    robin: MadeUser,
    log_in: LogIn,
    begin_to_fill: BeginToFill,
    server: redis.Redis,
) -> None:
    session = log_in(robin)

    begin_to_fill(session, robin).finish()

    assert copy_of(server, session).startswith(b"D1 ")
    assert verify(elsewhere, session) == 200


def test_the_life_of_a_copy_begins_before_its_state_is_read(
    robin: MadeUser, log_in: LogIn, begin_to_fill: BeginToFill, server: redis.Redis
) -> None:
    session = log_in(robin)
    filling = begin_to_fill(session, robin)
    key = session_key_of(server, session.session_id)
    server.pexpire(key, 5_000)  # As if the database had taken almost all the time there is.

    filling.finish()

    assert 0 < server.pttl(key) <= 5_000


# Redis cut off from one process


def test_a_process_without_redis_sees_a_revocation_immediately(
    make_app: Callable[..., Flask],
    robin: MadeUser,
    boss: SignedInClient,
    log_in: LogIn,
    proxy: FaultProxy,
    redis_url: str,
) -> None:
    cut_off = make_app(REDIS_URL=url_through(proxy, redis_url), SESSION_CACHE_SECONDS=LONG)
    session = log_in(robin)
    assert [verify(cut_off, session) for _ in range(2)] == [200, 200]

    proxy.refuse()
    still_served = verify(cut_off, session)
    suspend(boss, robin, session)

    assert (still_served, verify(cut_off, session)) == (200, 401)


@pytest.mark.thorough
def test_a_revocation_by_a_process_without_redis_applies_within_the_life_of_copies(
    make_app: Callable[..., Flask],
    robin: MadeUser,
    log_in: LogIn,
    proxy: FaultProxy,
    redis_url: str,
) -> None:
    cut_off = make_app(REDIS_URL=url_through(proxy, redis_url), SESSION_CACHE_SECONDS="1")
    other = make_app(SESSION_CACHE_SECONDS="1")
    session = log_in(robin)
    proxy.refuse()
    assert verify(other, session) == 200

    answer = JsonClient(cut_off, token=session.access_token).post("/api/v1/auth/logout")
    revoked_at = time.monotonic()

    assert answer.status_code == 204
    assert verify(cut_off, session) == 401
    sent_at = time.monotonic()
    while verify(other, session) != 401:
        # Accepted: then the request was sent within the limit, however long it took.
        assert sent_at - revoked_at < 1.0
        sent_at = time.monotonic()


@pytest.mark.thorough
def test_sessions_revoked_while_redis_hung_stay_revoked(
    private_server: Callable[[type[RedisServer]], RedisServer],
    make_app: Callable[..., Flask],
    robin: MadeUser,
    log_in: LogIn,
) -> None:
    """Copies from before the outage were trusted until the revoking process had another request
    and published its invalidations."""
    server = private_server(RedisServer)
    revoking, other = (make_app(REDIS_URL=server.url, SESSION_CACHE_SECONDS=LONG) for _ in range(2))
    sessions = [log_in(robin) for _ in range(3)]
    assert [verify(other, session) for session in sessions * 2] == [200] * 6

    server.pause()
    meanwhile = {verify(other, session) for session in sessions}
    for session in sessions:
        JsonClient(revoking, token=session.access_token).post("/api/v1/auth/logout")
    server.resume()
    afterwards = set()
    back = time.monotonic()
    while time.monotonic() - back < 5:
        afterwards |= {verify(other, session) for session in sessions}

    assert meanwhile == {200}
    assert afterwards == {401}


def live_sessions_behind(proxy: FaultProxy, app: Flask, redis_url: str) -> RedisLiveSessions:
    """Return the live sessions of another process, which asks Redis through a proxy."""
    services: Services = app.extensions["userapi"]
    return RedisLiveSessions(
        services.clock,
        copy_seconds=int(LONG),
        lookups=Redis(url_through(proxy, redis_url), timeout_seconds=5, breaker=CircuitBreaker(0)),
        invalidations=Redis(redis_url),
        database=DatabaseLiveSessions(services.clock, ShownUsers(), idle_timeout=IDLE_TIMEOUT),
    )


def test_a_reconnected_process_waits_for_the_invalidations_of_others(
    make_app: Callable[..., Flask],
    elsewhere: Flask,
    robin: MadeUser,
    log_in: LogIn,
    proxy: FaultProxy,
    redis_url: str,
) -> None:
    session = log_in(robin)
    with proxy_to(redis_url) as own_proxy, elsewhere.app_context():
        live = live_sessions_behind(own_proxy, elsewhere, redis_url)

        def find() -> LiveSession | None:
            return live.find(UUID(session.session_id), user_id=UUID(robin.id), session_version=1)

        before = find()
        own_proxy.refuse()
        meanwhile = find()
        proxy.refuse()
        revoking = make_app(REDIS_URL=url_through(proxy, redis_url), SESSION_CACHE_SECONDS=LONG)
        JsonClient(revoking, token=session.access_token).post("/api/v1/auth/logout")
        own_proxy.pass_on()

        assert before is not None and meanwhile is not None
        assert verify(elsewhere, session) == 200  # The copy is there.
        assert find() is None


def test_a_lookup_that_finds_redis_back_stores_a_copy(
    elsewhere: Flask, robin: MadeUser, log_in: LogIn, server: redis.Redis, redis_url: str
) -> None:
    """Its placeholder was not replaced, so the database was asked for longer than needed."""
    session = log_in(robin)
    with proxy_to(redis_url) as own_proxy, elsewhere.app_context():
        live = live_sessions_behind(own_proxy, elsewhere, redis_url)
        session_id, user_id = UUID(session.session_id), UUID(robin.id)
        own_proxy.refuse()
        assert live.find(session_id, user_id=user_id, session_version=1)
        server.flushdb()
        own_proxy.pass_on()

        assert live.find(session_id, user_id=user_id, session_version=1)

    assert copy_of(server, session).startswith(b"D")


@pytest.mark.thorough
def test_a_process_publishes_pending_invalidations_later_and_trusts_no_copy_before(
    elsewhere: Flask, robin: MadeUser, log_in: LogIn, proxy: FaultProxy, redis_url: str
) -> None:
    services: Services = elsewhere.extensions["userapi"]
    session = log_in(robin)
    session_id, user_id = UUID(session.session_id), UUID(robin.id)
    seconds = [0.0]
    breaker = CircuitBreaker(2.0, seconds_now=lambda: seconds[0])
    live = RedisLiveSessions(
        services.clock,
        copy_seconds=int(LONG),
        lookups=Redis(url_through(proxy, redis_url), timeout_seconds=5, breaker=CircuitBreaker(0)),
        invalidations=Redis(url_through(proxy, redis_url), timeout_seconds=5, breaker=breaker),
        database=services.live_sessions,  # Would show a trusted copy.
    )
    assert verify(elsewhere, session) == 200
    proxy.refuse()
    live.sessions_ended([SessionOfUser(session_id, user_id)])
    proxy.pass_on()

    assert verify(elsewhere, session) == 200  # The invalidation is not published yet.
    assert live.lookup(session_id, user_id=user_id, session_version=1) is None
    seconds[0] = 2.0
    wait_until(lambda: verify(elsewhere, session) == 401)
    wait_until(lambda: live.lookup(session_id, user_id=user_id, session_version=1) is not None)


def test_expired_invalidations_are_dropped(
    proxy: FaultProxy, redis_url: str, clock: ManualClock
) -> None:
    away = Redis(url_through(proxy, redis_url))
    proxy.refuse()
    live = RedisLiveSessions(
        clock,
        copy_seconds=0,
        lookups=away,
        invalidations=away,
        database=EmptyDatabase(clock, ShownUsers(), idle_timeout=IDLE_TIMEOUT),
    )

    live.user_changed(UUID(int=1), access_version=2)

    wait_until(lambda: live.lookup(UUID(int=2), user_id=UUID(int=1), session_version=1) is not None)


class EmptyDatabase(DatabaseLiveSessions):
    """An empty database."""

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        return None


def test_a_late_invalidation_does_not_undo_a_newer_one(redis_url: str, clock: ManualClock) -> None:
    store = Redis(redis_url, timeout_seconds=5)
    live = RedisLiveSessions(
        clock,
        copy_seconds=60,
        lookups=store,
        invalidations=store,
        database=EmptyDatabase(clock, ShownUsers(), idle_timeout=IDLE_TIMEOUT),
    )
    user_id, session_id = UUID(int=1), UUID(int=2)
    ended = command("GET", Place("s", session_id.hex, user_id).key)

    live.user_changed(user_id, access_version=3)
    live.user_changed(user_id, access_version=2)
    live.sessions_ended([SessionOfUser(session_id, user_id)])
    live.session_changed(session_id, user_id=user_id, version=2)

    assert store.execute(command("GET", owner_key(user_id)), ended) == [b"3", b"E"]
    store.execute(command("FLUSHDB"))
    store.close()


@pytest.mark.thorough
def test_callers_do_not_notice_a_stopped_redis(
    private_server: Callable[[type[RedisServer]], RedisServer],
    make_app: Callable[..., Flask],
    robin: MadeUser,
    boss: SignedInClient,
    log_in: LogIn,
) -> None:
    server = private_server(RedisServer)
    app, session = make_app(REDIS_URL=server.url), log_in(robin)
    assert verify(app, session) == 200

    server.stop()

    assert [verify(app, session) for _ in range(5)] == [200] * 5
    suspend(boss, robin, session)
    assert verify(app, session) == 401
