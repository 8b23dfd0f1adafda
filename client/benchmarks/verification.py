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
    print(f"| {CALLERS} threads, the key endpoint hangs | {threads} requests, none waited | |")
    print(f"| {CALLERS} tasks, the key endpoint hangs | {tasks} requests, none waited | |")
    if any(seconds > limit for _, seconds, limit in figures):
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
    """Return how many requests threads have made while a fetch of the keys hung."""
    clock = Clock()
    with Verifier(
        service.url, issuer=ISSUER, audience=AUDIENCE, timeout=60, clock=clock
    ) as verifier:
        token = service.token()
        verifier.verify(token)
        service.hang(KEYS)
        clock.advance(301)
        with ThreadPoolExecutor(CALLERS) as pool:
            done = list(pool.map(lambda _: verifier.verify(token), range(CALLERS)))
        # The fetch is still under way: nobody can have waited for its end.
        assert service.counts[KEYS] >= 1
    return len(done)


async def tasks_while_hanging(service: HostileService) -> int:
    """Return how many requests tasks have made while a fetch of the keys hung."""
    clock = Clock()
    verifier = AsyncVerifier(service.url, issuer=ISSUER, audience=AUDIENCE, timeout=60, clock=clock)
    service.answer(KEYS, service.published)
    async with verifier:
        token = service.token()
        await verifier.verify(token)
        service.hang(KEYS)
        clock.advance(301)
        done = await asyncio.gather(*(verifier.verify(token) for _ in range(CALLERS)))
    return len(done)


if __name__ == "__main__":
    main()
