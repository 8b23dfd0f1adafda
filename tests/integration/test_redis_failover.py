"""A Redis that fails over: a promoted replica may have a copy, and have lost its tombstone."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.proxy import proxy_to, url_through
from tests.support.redis_keys import forget_previous_keys, session_key_of
from tests.support.servers import RedisServer
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.views import ShownUsers
from userapi.infrastructure.circuit_breaker import CircuitBreaker
from userapi.infrastructure.redis_client import Redis
from userapi.sessions.cache import RedisLiveSessions
from userapi.sessions.status import DatabaseLiveSessions, LiveSession
from userapi.wiring.services import Services

OTHER_SERVER = b"00000000"


@pytest.fixture
def session(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("robin"))


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def copy_of(server: redis.Redis, session: SignedInClient) -> bytes:
    """Look the session up twice and return the copy that Redis then holds."""
    for _ in range(2):
        assert verify(session) == 200
    copy = server.get(session_key_of(server, session.session_id))
    assert isinstance(copy, bytes) and copy.startswith(b"D")
    return copy


def verify(client: JsonClient) -> int:
    return int(client.get("/api/v1/auth/verify").status_code)


def of_another_server(server: redis.Redis, copy: bytes) -> bytes:
    info: Any = server.info("server")
    own = info["run_id"][: len(OTHER_SERVER)].encode()
    assert copy.count(own) == 1
    return copy.replace(own, OTHER_SERVER)


def test_a_copy_of_another_server_process_is_a_miss(
    app: Flask, session: SignedInClient, server: redis.Redis
) -> None:
    """After a failover, a revoked session was accepted 178 times in 9.6 s."""
    stale = of_another_server(server, copy_of(server, session))
    assert session.post("/api/v1/auth/logout").status_code == 204
    server.set(session_key_of(server, session.session_id), stale, px=60_000)
    forget_previous_keys(server)

    assert verify(session) == 401


def test_a_placeholder_of_another_server_process_is_replaced(
    app: Flask, session: SignedInClient, server: redis.Redis
) -> None:
    copy = copy_of(server, session)
    server.set(session_key_of(server, session.session_id), b"P" + OTHER_SERVER + b":1.2", px=60_000)

    assert verify(session) == 200

    assert server.get(session_key_of(server, session.session_id)) == copy


@pytest.mark.parametrize(
    "unreadable",
    [b"D", b"D1", b"D1 1 1 x", b"C1 1 1 []", b"Z", b"", b"\xff\xfe"],
)
def test_a_value_in_an_unknown_form_is_a_miss(
    app: Flask, session: SignedInClient, server: redis.Redis, unreadable: bytes
) -> None:
    copy_of(server, session)
    server.set(session_key_of(server, session.session_id), unreadable, px=60_000)

    assert {verify(session) for _ in range(3)} == {200}
    assert session.post("/api/v1/auth/logout").status_code == 204
    assert verify(session) == 401


@pytest.mark.parametrize("text", [b"{}", b"[]", b"[1,2,3,4,5,6,7]", b"[1,2,3,4,5,6,7,8]", b"nan"])
def test_a_copy_of_this_server_in_an_unknown_form_is_a_miss(
    app: Flask, session: SignedInClient, server: redis.Redis, text: bytes
) -> None:
    copy = copy_of(server, session)
    head = copy[: copy.index(b"[")]
    server.set(session_key_of(server, session.session_id), head + text, px=60_000)

    assert verify(session) == 200


def test_a_fill_during_a_failover_is_rejected(
    app: Flask, session: SignedInClient, tmp_path: Path
) -> None:
    """The replica holds the placeholder of the fill, and may have lost a later revocation."""
    services: Services = app.extensions["userapi"]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with RedisServer(tmp_path / "first") as first, RedisServer(tmp_path / "second") as second:
        with proxy_to(first.url) as proxy, app.app_context():
            password = first.url.partition("//")[2].partition("@")[0].lstrip(":")
            promoted = redis.Redis.from_url(second.url)
            promoted.config_set("requirepass", password)

            def fail_over() -> None:
                with redis.Redis.from_url(first.url) as master:
                    key = session_key_of(master, session.session_id)
                    placeholder = master.get(key)
                assert isinstance(placeholder, bytes) and placeholder.startswith(b"P")
                promoted.auth(password)
                promoted.set(key, placeholder, px=60_000)
                proxy.lead_to(second.port)
                proxy.refuse()
                proxy.pass_on()

            url = url_through(proxy, first.url)
            live = RedisLiveSessions(
                services.clock,
                copy_seconds=60,
                lookups=Redis(url, timeout_seconds=5, breaker=CircuitBreaker(0)),
                invalidations=Redis(url, timeout_seconds=5),
                database=_FailingOver(services, fail_over),
            )

            found = live.find(
                UUID(session.session_id), user_id=user_id_of(session), session_version=1
            )

            assert found is not None
            stored = promoted.get(session_key_of(promoted, session.session_id))
            assert isinstance(stored, bytes) and stored.startswith(b"P")


class _FailingOver(DatabaseLiveSessions):
    """The database, during whose reply Redis fails over."""

    def __init__(self, services: Services, fail_over: Callable[[], None]) -> None:
        super().__init__(services.clock, ShownUsers(), idle_timeout=timedelta(days=1))
        self._fail_over = fail_over

    def find(
        self, session_id: UUID, *, user_id: UUID, session_version: int, reply: object = None
    ) -> LiveSession | None:
        """Return the live session after the failover."""
        found = super().find(session_id, user_id=user_id, session_version=session_version)
        self._fail_over()
        return found


def user_id_of(session: SignedInClient) -> UUID:
    return UUID(session.get("/api/v1/auth/me").get_json()["id"])
