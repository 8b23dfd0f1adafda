"""During an upgrade two releases share a Redis: each finds the revocations of the other one.

The previous release is represented by the keys that it writes.
`tests/cluster/test_previous_release.py` runs it.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
import redis
from flask import Flask

from tests.support.polling import wait_until
from tests.support.redis_keys import session_key_of
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser, SignedInClient
from userapi.infrastructure.redis_topologies import redis_client
from userapi.wiring.services import Services

VERIFY = "/api/v1/auth/verify"
CATALOGUE = "userapi:live:roles"
COPY = b"C1 1 1 []"


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(SESSION_CACHE_SECONDS="300")


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def session(app: Flask, robin: MadeUser, log_in: LogIn) -> SignedInClient:
    session = log_in(robin)
    for _ in range(2):
        assert session.get(VERIFY).status_code == 200
    return session


def previous_key(session: SignedInClient) -> str:
    return f"userapi:live:s:{UUID(session.session_id).hex}"


def previous_user_key(user: MadeUser) -> str:
    return f"userapi:live:u:{UUID(user.id).hex}"


def is_cached(app: Flask, session: SignedInClient, user: MadeUser, redis_url: str) -> bool:
    """Return whether a lookup finds a valid copy."""
    services: Services = app.extensions["userapi"]
    lookup = services.live_sessions.lookup(
        UUID(session.session_id), user_id=UUID(user.id), session_version=1
    )
    assert lookup is not None
    client = redis_client(redis_url, timeout_seconds=5)
    replies = client.execute(lookup)
    client.close()
    assert replies is not None
    return isinstance(replies[0], bytes) and replies[0].startswith(b"D")


# The previous release revokes


def test_a_session_that_the_previous_release_ended_is_rejected(
    session: SignedInClient, server: redis.Redis
) -> None:
    server.set(previous_key(session), b"E", px=70_000)

    # The row is still live here, so only the tombstone can decide.
    assert session.get(VERIFY).status_code == 401
    key = session_key_of(server, session.session_id)
    assert server.get(key) == b"E"
    assert 0 < server.pttl(key) <= 70_000


@pytest.mark.thorough
def test_a_user_whom_the_previous_release_changed_is_read_again(
    app: Flask, session: SignedInClient, robin: MadeUser, server: redis.Redis, redis_url: str
) -> None:
    assert is_cached(app, session, robin, redis_url)

    server.set(previous_user_key(robin), b"1000000", px=70_000)

    assert not is_cached(app, session, robin, redis_url)


def test_roles_that_the_previous_release_changed_are_read_again(
    app: Flask, session: SignedInClient, robin: MadeUser, server: redis.Redis, redis_url: str
) -> None:
    assert is_cached(app, session, robin, redis_url)

    server.set(CATALOGUE, b"1000000", px=70_000)

    assert not is_cached(app, session, robin, redis_url)


def test_versions_that_the_previous_release_stored_with_a_copy_change_nothing(
    app: Flask, session: SignedInClient, robin: MadeUser, server: redis.Redis, redis_url: str
) -> None:
    server.set(previous_key(session), COPY, px=70_000)
    server.set(previous_user_key(robin), b"1", px=70_000)
    server.set(CATALOGUE, b"1", px=70_000)

    assert is_cached(app, session, robin, redis_url)


# This release revokes


def test_the_previous_release_finds_a_session_that_has_ended(
    session: SignedInClient, server: redis.Redis
) -> None:
    server.set(previous_key(session), COPY, px=60_000)

    assert session.post("/api/v1/auth/logout").status_code == 204

    assert server.get(previous_key(session)) == b"E"


def test_the_previous_release_finds_a_new_password(
    session: SignedInClient, server: redis.Redis
) -> None:
    server.set(previous_key(session), COPY, px=60_000)
    body = {"current_password": PASSWORD, "new_password": "granite-otter-57-teapot"}

    assert session.post("/api/v1/auth/change-password", json=body).status_code == 200

    assert server.get(previous_key(session)) is None


def test_the_previous_release_finds_changed_users_and_roles(
    session: SignedInClient,
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
    server: redis.Redis,
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    server.set(previous_user_key(robin), b"1", px=60_000)
    server.set(CATALOGUE, b"1", px=60_000)

    boss.put(f"/api/v1/users/{robin.id}/roles", json={"roles": ["moderator"]})
    boss.post("/api/v1/roles/", json={"name": "editor", "permissions": ["media:upload"]})

    wait_until(lambda: int(server.get(previous_user_key(robin)) or 0) > 1)
    assert int(server.get(CATALOGUE) or 0) > 1
