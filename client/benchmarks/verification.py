"""Figures of the README: what a verification costs, and who waits while the service hangs.

python benchmarks/verification.py
"""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("src", "tests")]

from hostile import AUDIENCE, ISSUER, KEYS, Clock, HostileService  # noqa: E402

from userapi_client import AsyncVerifier, Verifier  # noqa: E402

SEEN_LIMIT_SECONDS = 5e-6
NEW_LIMIT_SECONDS = 0.2e-3
CALLERS = 1000
ROUNDS = 100
# A caller that waits for the keys while the service hangs waits for this time.
HANGING_SECONDS = 30.0


def main() -> None:
    """Print the figures; exit with 1 if one is over its limit."""
    with HostileService() as service:
        figures = [
            ("a token seen before", seen(service), SEEN_LIMIT_SECONDS),
            ("a new ES256 token", new(service), NEW_LIMIT_SECONDS),
        ]
        threads, tasks = while_hanging(service), asyncio.run(tasks_while_hanging(service))
    for name, seconds, limit in figures:
        print(f"| Verification of {name} | {seconds * 1e6:.1f} µs | ≤ {limit * 1e6:.0f} µs |")
    print(f"| {CALLERS} threads, the key endpoint hangs | {threads} waited | none |")
    print(f"| {CALLERS} tasks, the key endpoint hangs | {tasks} waited | none |")
    if threads or tasks or any(seconds > limit for _, seconds, limit in figures):
        sys.exit("A figure is over its limit.")


def seen(service: HostileService) -> float:
    """Return the seconds of a verification of a token that was verified before."""
    with Verifier(service.url, issuer=ISSUER, audience=AUDIENCE) as verifier:
        token = service.token()
        return fastest(lambda: verifier.verify(token), times=1000)


def new(service: HostileService) -> float:
    """Return the seconds of a verification of a token that is new each time."""
    with Verifier(service.url, issuer=ISSUER, audience=AUDIENCE) as verifier:
        verifier.warm()
        tokens = iter([service.token(jti=str(number)) for number in range(ROUNDS * 20)])
        return fastest(lambda: verifier.verify(next(tokens)), times=20)


def fastest(work: Callable[[], object], *, times: int) -> float:
    """Return the seconds that one call computes, in the fastest round."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        for _ in range(times):
            work()
        rounds.append((time.thread_time() - begun) / times)
    return min(rounds)


def while_hanging(service: HostileService) -> int:
    """Return how many of the requests of threads waited while a fetch of the keys hung."""
    clock = Clock()
    with Verifier(
        service.url, issuer=ISSUER, audience=AUDIENCE, timeout=HANGING_SECONDS, clock=clock
    ) as verifier:
        token = service.token()
        verifier.verify(token)
        fetches = service.counts[KEYS]
        service.hang(KEYS)
        clock.advance(301)

        def verify(_: int) -> float:
            begun = time.monotonic()
            verifier.verify(token)
            return time.monotonic() - begun

        with ThreadPoolExecutor(CALLERS) as pool:
            spans = list(pool.map(verify, range(CALLERS)))
        _require_fetch(service, fetches)
    return sum(span >= HANGING_SECONDS for span in spans)


async def tasks_while_hanging(service: HostileService) -> int:
    """Return how many of the requests of tasks waited while a fetch of the keys hung."""
    clock = Clock()
    service.answer(KEYS, service.published)
    async with AsyncVerifier(
        service.url, issuer=ISSUER, audience=AUDIENCE, timeout=HANGING_SECONDS, clock=clock
    ) as verifier:
        token = service.token()
        await verifier.verify(token)
        fetches = service.counts[KEYS]
        service.hang(KEYS)
        clock.advance(301)

        async def verify() -> float:
            begun = time.monotonic()
            await verifier.verify(token)
            return time.monotonic() - begun

        spans = await asyncio.gather(*(verify() for _ in range(CALLERS)))
        _require_fetch(service, fetches)
    return sum(span >= HANGING_SECONDS for span in spans)


def _require_fetch(service: HostileService, before: int) -> None:
    """Exit if no request made the verifier fetch the keys: then nothing hung."""
    deadline = time.monotonic() + HANGING_SECONDS
    while service.counts[KEYS] == before:
        if time.monotonic() > deadline:
            sys.exit("The keys were not fetched.")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
