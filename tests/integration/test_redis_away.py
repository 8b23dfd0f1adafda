"""The client of an unavailable Redis: the cost of a call, and the reconnection."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.polling import ATTEMPTS, least_seconds, wait_until
from tests.support.proxy import proxy_to, url_through
from tests.support.servers import RedisServer
from userapi.infrastructure.circuit_breaker import CircuitBreaker
from userapi.infrastructure.redis_client import Redis
from userapi.infrastructure.redis_commands import Script, command

PING = command("PING")
DOUBLE = Script("return ARGV[1] * 2")


@pytest.fixture
def store(redis_url: str) -> Iterator[Redis]:
    store = Redis(redis_url, timeout_seconds=5)
    yield store
    store.close()


def test_commands_of_one_call_are_sent_together(store: Redis) -> None:
    replies = store.execute(
        command("SET", "a", "1"),
        DOUBLE.on(arguments=(21,)),
        command("GET", "a"),
        command("GET", "b"),
    )

    assert replies == [b"OK", 42, b"1", None]


def test_a_script_that_redis_does_not_have_is_sent(store: Redis) -> None:
    store.execute(DOUBLE.on(arguments=(1,)))
    store.execute(command("SCRIPT", "FLUSH"))

    assert store.execute(
        DOUBLE.on(arguments=(2,)), command("INCR", "n"), DOUBLE.on(arguments=(3,))
    ) == [
        4,
        1,
        6,
    ]


def test_a_rejected_command_has_no_reply(store: Redis) -> None:
    assert (
        store.execute(command("SET", "a", "text"), command("INCR", "a"), command("GET", "a"))
        is None
    )
    assert store.is_unavailable("")


def test_a_restart_of_redis_is_no_outage(
    private_server: Callable[[type[RedisServer]], RedisServer],
) -> None:
    server = private_server(RedisServer)
    store = Redis(server.url, timeout_seconds=5)
    assert store.execute(PING) == [b"PONG"]

    server.stop()
    server.start()

    assert store.execute(PING) == [b"PONG"]
    assert not store.is_unavailable("")
    store.close()


def test_a_frozen_redis_costs_one_time_out_and_not_one_per_call(
    private_server: Callable[[type[RedisServer]], RedisServer],
) -> None:
    server = private_server(RedisServer)
    first: list[float] = []
    others: list[float] = []
    for _ in range(ATTEMPTS):
        store = Redis(server.url)
        wait_until(partial(store.execute, PING))
        server.pause()
        took = []
        for _ in range(20):
            begun = time.monotonic()
            assert store.execute(PING) is None
            took.append(time.monotonic() - begun)
        server.resume()
        store.close()
        first.append(took[0])
        others.append(sum(took[1:]))
        if min(first) < 0.5 and min(others) < 0.04:
            break

    # Other work on the machine adds to single attempts, a time-out of each question to all.
    assert 0.03 < min(first) < 0.5
    assert min(others) < 0.04


def test_an_unreachable_redis_costs_no_more(redis_url: str) -> None:
    proxy = proxy_to(redis_url)
    proxy.black_hole()

    def send_twenty() -> None:
        store = Redis(url_through(proxy, redis_url))
        assert [store.execute(PING) for _ in range(20)] == [None] * 20
        store.close()

    assert least_seconds(send_twenty, below=0.5) < 0.5
    proxy.close()


def test_one_caller_tries_to_reconnect_for_all(redis_url: str) -> None:
    proxy = proxy_to(redis_url)
    seconds = [0.0]
    breaker = CircuitBreaker(2.0, seconds_now=lambda: seconds[0])
    store = Redis(url_through(proxy, redis_url), timeout_seconds=5, breaker=breaker)
    proxy.refuse()
    assert store.execute(PING) is None
    proxy.pass_on()
    assert store.execute(PING) is None  # The breaker is still open.

    seconds[0] = 2.0

    assert store.execute(PING) == [b"PONG"]
    assert not store.is_unavailable("")
    store.close()
    proxy.close()


def _client_id(store: Redis, into: "multiprocessing.Queue[object]") -> None:
    into.put(store.execute(command("CLIENT", "ID")))


def test_a_child_process_has_its_own_connections(store: Redis) -> None:
    ours = store.execute(command("CLIENT", "ID"))
    fork = multiprocessing.get_context("fork")
    replies = fork.Queue()

    child = fork.Process(target=_client_id, args=(store, replies))
    child.start()
    theirs = replies.get(timeout=60)
    child.join(10)

    assert theirs is not None and theirs != ours
    assert store.execute(command("CLIENT", "ID")) == ours


def test_any_number_of_connections_can_be_opened_one_after_the_other(store: Redis) -> None:
    """redis-py counts every connection, so the 101st of a process failed, and all after it."""
    for _ in range(150):
        assert store.execute(PING) == [b"PONG"]
        store.close()
