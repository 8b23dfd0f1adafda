"""A Redis that replies but rejects writes is reported as down, with the reason."""

import shutil
from collections.abc import Callable

import pytest
import redis
from flask import Flask

from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.servers import RedisServer, Server
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.infrastructure.circuit_breaker import OPEN_SECONDS

MakeApp = Callable[..., Flask]
PrivateServer = Callable[[type[Server]], RedisServer]


def make_full(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")


def make_replica(server: RedisServer, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", free_port())


def take_replicas_away(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", "1")


def take_disk_away(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("save", "3600 1")
    shutil.rmtree(server.directory)
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


STATES = [
    pytest.param(make_full, "is full", id="full"),
    pytest.param(make_replica, "is a replica", id="replica"),
    pytest.param(take_replicas_away, "has too few replicas", id="no replicas"),
    pytest.param(take_disk_away, "cannot save its data", id="no disk"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("refuse_writes", "about"), STATES)
def test_a_redis_that_accepts_no_writes_is_down(
    make_app: MakeApp,
    private_server: PrivateServer,
    refuse_writes: Callable[[RedisServer, redis.Redis], None],
    about: str,
) -> None:
    """PING was answered, so it was up everywhere while no page of the console could be used."""
    server = private_server(RedisServer)
    app = make_app(REDIS_URL=server.url, HEALTH_DETAILED_PUBLIC="true")
    client = JsonClient(app)
    with redis.Redis.from_url(server.url) as connection:
        before = client.get("/api/v1/health/ready").get_json()
        keys = connection.dbsize()
        refuse_writes(server, connection)

        ready = client.get("/api/v1/health/ready")
        detailed = client.get("/api/v1/health/detailed").get_json()
        metrics = client.get("/metrics").text
        doctor = app.test_cli_runner().invoke(args=["doctor"])

    assert (before["checks"]["redis"], keys) == ("up", 0)
    assert ready.status_code == 200
    assert (ready.get_json()["status"], ready.get_json()["checks"]["redis"]) == ("degraded", "down")
    assert detailed["components"]["redis"]["status"] == "down"
    assert 'dependency_up{dependency="redis"} 0.0' in metrics
    assert (about in doctor.output, doctor.exit_code) == (True, 1)


def test_the_console_says_that_it_is_away_while_redis_accepts_no_writes(
    make_app: MakeApp, private_server: PrivateServer, make_user: MakeUser, log_in: LogIn
) -> None:
    server = private_server(RedisServer)
    reader = PageReader(make_app(REDIS_URL=server.url))
    robin = make_user("robin")
    reader.get("/sign-in")
    with redis.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory", "1")

        refused = reader.post("/sign-in", username="robin", password=robin.password)
        api = log_in(robin).get("/api/v1/auth/me")
        connection.config_set("maxmemory", "0")
        # The circuit breaker notices it a moment later.
        wait_until(lambda: _signs_in(reader, robin))

    assert (refused.status_code, refused.mimetype) == (503, "text/html")
    # After that time the breaker lets a request try Redis again.
    assert int(refused.headers["Retry-After"]) >= OPEN_SECONDS
    assert "Browser sessions are temporarily unavailable. Try again." in words(refused)
    assert api.status_code == 200


def _signs_in(reader: PageReader, user: MadeUser) -> bool:
    reader.get("/sign-in")
    answer = reader.post("/sign-in", username=user.username, password=user.password)
    return answer.status_code == 303
