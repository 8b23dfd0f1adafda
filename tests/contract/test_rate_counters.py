"""What every counter of requests guarantees: in this process, and in each kind of Redis."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from tests.support.clusters.topologies import Kind, Topology
from userapi.clock import ManualClock
from userapi.infrastructure.rate_counters import (
    Condition,
    MemoryRateCounter,
    RateCounter,
    key_of_user,
)
from userapi.infrastructure.redis_commands import RedisClient, command
from userapi.infrastructure.redis_rate_counter import RedisRateCounter
from userapi.infrastructure.redis_topologies import redis_client
from userapi.sessions.copy_store import Place

USER = UUID("01900000-0000-7000-8000-0000000000a7")
SESSION = UUID("01900000-0000-7000-8000-000000000001")
KEY = Place("s", SESSION.hex, USER).key
IS_LIVE = Condition(KEY, met="D1 ", undecided="P")


@pytest.fixture
def client(
    request: pytest.FixtureRequest, topologies: Callable[[Kind], Topology]
) -> Iterator[RedisClient | None]:
    """Return a client of a Redis of the kind that is the parameter of the test, if any."""
    if request.param is None:
        yield None
        return
    topology = topologies(request.param)
    client = redis_client(topology.url, timeout_seconds=5)
    yield client
    client.close()
    topology.empty()


@pytest.fixture
def rates(client: RedisClient | None, clock: ManualClock) -> RateCounter:
    return MemoryRateCounter(clock) if client is None else RedisRateCounter(client, clock)


everywhere = pytest.mark.parametrize("client", [None, *Kind], indirect=True)
in_redis = pytest.mark.parametrize("client", Kind, indirect=True)


@everywhere
def test_each_caller_has_a_count_of_its_own(rates: RateCounter) -> None:
    counts = [rates.hit(key, seconds=60).count for key in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]

    assert counts == [1, 1, 2]
    assert [rates.count(key) for key in ("10.0.0.1", "10.0.0.3")] == [2, 0]


@everywhere
def test_a_hit_contains_the_end_of_its_window(rates: RateCounter) -> None:
    assert 50 < rates.hit("10.0.0.1", seconds=60).seconds_left <= 60
    assert 50 < rates.hit("10.0.0.1", seconds=60, cost=3).seconds_left <= 60
    assert rates.count("10.0.0.1") == 4


@everywhere
def test_after_a_reset_a_new_window_begins(rates: RateCounter) -> None:
    rates.hit("10.0.0.1", seconds=60)

    rates.reset("10.0.0.1")

    assert rates.hit("10.0.0.1", seconds=60).count == 1


@everywhere
def test_concurrent_hits_are_all_counted(rates: RateCounter) -> None:
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: rates.hit("10.0.0.1", seconds=60).count, range(40)))

    assert sorted(counts) == list(range(1, 41))


@in_redis
def test_a_request_of_a_live_session_counts_for_its_user(
    client: RedisClient, rates: RateCounter
) -> None:
    after = command("SET", KEY, "D1 2 3 copy")

    decided = rates.hit_if(USER, seconds=60, condition=IS_LIVE, after=after)

    assert decided.hit is not None
    assert (decided.hit.count, decided.is_met, decided.reply) == (1, True, b"OK")
    # The same counter for all processes.
    assert rates.hit(key_of_user(USER), seconds=60).count == 2


@in_redis
@pytest.mark.parametrize(
    ("value", "is_met"), [("E", False), ("D2 2 3 copy", False), ("P1:2", None)]
)
def test_another_session_counts_nothing(
    client: RedisClient, rates: RateCounter, value: str, is_met: bool | None
) -> None:
    after = command("SET", KEY, value)

    decided = rates.hit_if(USER, seconds=60, condition=IS_LIVE, after=after)

    assert (decided.hit, decided.is_met, decided.reply) == (None, is_met, b"OK")
    assert rates.count(key_of_user(USER)) == 0


@in_redis
def test_a_missing_session_is_undecided(client: RedisClient, rates: RateCounter) -> None:
    decided = rates.hit_if(USER, seconds=60, condition=IS_LIVE, after=command("DEL", KEY))

    assert (decided.hit, decided.is_met, decided.reply) == (None, None, 0)


@in_redis
def test_a_count_for_an_owner_shares_the_round_trip_of_a_command(
    client: RedisClient, rates: RateCounter
) -> None:
    after = command("SET", KEY, "D1 2 3 copy")

    hit, reply = rates.hit_of(USER, "token:a", seconds=60, after=after)
    again, nothing = rates.hit_of(USER, "token:a", seconds=60, after=None)

    assert (hit.count, reply) == (1, b"OK")
    assert (again.count, nothing) == (2, None)
    assert rates.hit_of(USER, "token:b", seconds=60, after=None)[0].count == 1


@pytest.mark.parametrize("client", [None], indirect=True)
def test_without_redis_an_owner_is_counted_and_no_command_is_executed(rates: RateCounter) -> None:
    after = command("DEL", KEY)

    replies = [rates.hit_of(USER, "token:a", seconds=60, after=after) for _ in range(2)]

    assert [(hit.count, reply) for hit, reply in replies] == [(1, None), (2, None)]


@pytest.mark.parametrize("client", [None], indirect=True)
def test_without_redis_a_condition_is_undecided(rates: RateCounter) -> None:
    decided = rates.hit_if(USER, seconds=60, condition=IS_LIVE, after=command("DEL", KEY))

    assert (decided.hit, decided.is_met, decided.reply) == (None, None, None)
