"""The published keys: outages, made-up key ids, hanging and lying services.

Each test stands for a fault that clients of other services had.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from either import AnyVerifier
from hostile import AUDIENCE, ISSUER, KEYS, HostileService, Reply, SigningKey, problem

from userapi_client import AsyncVerifier, TokenRefused, Unavailable

Make = Callable[..., AnyVerifier]


def with_kid(service: HostileService, kid: str) -> str:
    return service.token(header={"kid": kid})


def fetched(service: HostileService, count: int) -> None:
    """Wait until the service was asked so often for its keys."""
    deadline = time.monotonic() + 30
    while service.counts[KEYS] < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stale_keys_are_used_while_the_service_is_unavailable(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    verifier.verify(service.token())
    service.reply(KEYS, problem(500, "internal_error"))

    clock.advance(600)
    verifier.verify(service.token(exp=int(clock()) + 60))
    clock.advance(3001)

    with pytest.raises(Unavailable) as unavailable:
        verifier.verify(service.token(exp=int(clock()) + 60))
    assert unavailable.value.retry_after is not None
    assert 1 <= unavailable.value.retry_after <= 10


def test_a_known_key_never_waits_for_a_fetch(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    """A lock that is held during the fetch made callers with a known key wait for made-up ones."""
    verifier = make_verifier(clock=clock, timeout=20)
    token = service.token(exp=int(clock()) + 3000)
    verifier.verify(token)
    service.hang(KEYS)
    clock.advance(11)

    with ThreadPoolExecutor(50) as pool:
        made_up = [
            pool.submit(verifier.verify, with_kid(service, f"made-up-{number}"))
            for number in range(50)
        ]
        fetched(service, 2)
        for _ in range(100):
            verifier.verify(token)
        # None of those who wait has finished: the known key has waited for nobody.
        assert not any(future.done() for future in made_up)
        clock.advance(400)
        verifier.verify(token)
        assert service.counts[KEYS] == 2
        service.release()
        for future in made_up:
            with pytest.raises(TokenRefused):
                future.result(60)


def test_a_cold_verifier_fetches_once_for_all(make_verifier: Make, service: HostileService) -> None:
    verifier = make_verifier()
    tokens = [service.token() for _ in range(100)]

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(verifier.verify, tokens))

    assert len(found) == 100
    assert service.counts[KEYS] == 1


def test_made_up_key_ids_cause_one_fetch_in_ten_seconds(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    verifier.warm()

    for number in range(1000):
        if number == 500:
            clock.advance(11)
            service.reply(KEYS, problem(500, "internal_error"))
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(with_kid(service, f"made-up-{number}"))
        assert refused.value.code == "token_invalid"

    assert service.counts[KEYS] == 2


def test_a_new_key_is_fetched_when_it_is_first_seen(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    old = service.token()
    verifier.verify(old)
    first, second = service.key, SigningKey("second")
    service.reply(KEYS, Reply(document={"keys": [first.document, second.document]}))
    clock.advance(11)

    verifier.verify(service.token(key=second))
    verifier.verify(old)

    assert service.counts[KEYS] == 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=302, headers={"Location": "/elsewhere"}),
        Reply(body=b" " * 300_000),
        Reply(document={"keys": []}),
        Reply(document={"keys": "none"}),
        Reply(document=["keys"]),
        Reply(body=b"["),
        Reply(body=b"[" * 100_000),
        Reply(document={"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}]}),
        Reply(document={"keys": [{"kty": "EC", "crv": "P-256", "kid": "first", "x": "A"}]}),
        Reply(status=404, document={"keys": []}),
        Reply(is_cut=True),
    ],
    ids=lambda reply: f"{reply.status}-{reply.content[:12]!r}",
)
def test_a_key_set_that_cannot_be_used_leaves_the_old_keys(
    make_verifier: Make, service: HostileService, clock: Any, reply: Reply
) -> None:
    verifier = make_verifier(clock=clock)
    token = service.token()
    verifier.verify(token)
    service.reply(KEYS, reply)
    service.reply("/elsewhere", Reply(document={"keys": [SigningKey("first").document]}))
    clock.advance(301)

    with pytest.raises(TokenRefused):
        verifier.verify(with_kid(service, "made-up"))
    verifier.verify(token)

    assert service.counts[KEYS] == 2
    assert service.counts["/elsewhere"] == 0


def test_keys_of_another_use_are_passed_over(make_verifier: Make, service: HostileService) -> None:
    key = service.key.document
    others = [
        {**key, "use": "enc"},
        {**key, "alg": "ES384"},
        {**key, "kid": 5},
        {name: value for name, value in key.items() if name != "kid"},
        "no object",
    ]
    service.reply(KEYS, Reply(document={"keys": others}))

    with pytest.raises(Unavailable):
        make_verifier().verify(service.token())


def test_warm_fails_early(make_verifier: Make, service: HostileService) -> None:
    service.reply(KEYS, problem(503, "service_unavailable"))

    with pytest.raises(Unavailable):
        make_verifier().warm()


def test_a_clock_that_is_set_back_does_not_keep_keys_for_ever(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    verifier.verify(service.token())

    clock.advance(-7200)
    verifier.verify(service.token(iat=0, nbf=0))

    fetched(service, 2)


def test_the_event_loop_continues_while_the_keys_hang(service: HostileService) -> None:
    """A fetch that blocks the loop stops every request of the process."""
    service.hang(KEYS)

    async def run() -> None:
        verifier = AsyncVerifier(service.url, issuer=ISSUER, audience=AUDIENCE, timeout=30)
        asked = [asyncio.create_task(verifier.verify(service.token())) for _ in range(100)]
        for _ in range(200):
            await asyncio.sleep(0.001)
            assert not any(task.done() for task in asked)
        service.release()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        await verifier.close()

    asyncio.run(run())
    assert service.counts[KEYS] == 1


# The connections of a loop that nobody closed in time are left to the garbage collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_follows_another_gets_its_own_connections(service: HostileService) -> None:
    """Frameworks for tests run each request in a loop of its own."""
    assert in_two_loops(service) == ["service", "service"]
    gc.collect()


def in_two_loops(service: HostileService) -> list[str]:
    verifier = AsyncVerifier(service.url, issuer=ISSUER, audience=AUDIENCE)
    token = service.token()

    async def ask() -> str:
        return (await verifier.verify(token, fresh=True)).checked

    return [asyncio.run(ask()) for _ in range(2)]
