"""Runs the same test on the class for threads and on the one for event loops."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from hostile import AUDIENCE, ISSUER

from userapi_client import AsyncClient, AsyncVerifier, Client, Principal, Verifier

T = TypeVar("T")
KINDS = ("threads", "loop")


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class AnyVerifier(Protocol):
    """Either verifier, called from any thread."""

    def verify(
        self, token: str, *, fresh: bool = False, address: str | None = None
    ) -> Principal: ...

    def warm(self) -> None: ...

    def close(self) -> None: ...


class LoopVerifier:
    """An `AsyncVerifier` that threads can call."""

    def __init__(self, loop: Loop, verifier: AsyncVerifier) -> None:
        self._loop = loop
        self._verifier = verifier

    def verify(self, token: str, *, fresh: bool = False, address: str | None = None) -> Principal:
        return self._loop.run(self._verifier.verify(token, fresh=fresh, address=address))

    def warm(self) -> None:
        self._loop.run(self._verifier.warm())

    def close(self) -> None:
        self._loop.run(self._verifier.close())


def verifiers(kind: str, url: str) -> Iterator[Callable[..., AnyVerifier]]:
    """Yield a function that makes verifiers of one kind, and close them all afterwards."""
    loop = Loop()
    made: list[AnyVerifier] = []

    def make(base_url: str = url, **options: Any) -> AnyVerifier:
        arguments = {"issuer": ISSUER, "audience": AUDIENCE, **options}
        verifier: AnyVerifier
        if kind == "threads":
            verifier = Verifier(base_url, **arguments)
        else:
            verifier = LoopVerifier(loop, AsyncVerifier(base_url, **arguments))
        made.append(verifier)
        return verifier

    yield make
    for verifier in made:
        verifier.close()
    loop.close()


class AnyClient:
    """Either client, called from any thread: `client.do(lambda api: api.users.get(id))`."""

    def __init__(self, client: Any, loop: Loop | None) -> None:
        self.client = client
        self._loop = loop

    def do(self, work: Callable[[Any], Any]) -> Any:
        if self._loop is None:
            return work(self.client)

        async def run() -> Any:
            return await work(self.client)

        return self._loop.run(run())

    def all(self, work: Callable[[Any], Any]) -> list[Any]:
        if self._loop is None:
            return list(work(self.client))

        async def run() -> list[Any]:
            return [item async for item in work(self.client)]

        return self._loop.run(run())


def clients(kind: str, url: str) -> Iterator[Callable[..., AnyClient]]:
    """Yield a function that makes clients of one kind, and close them all afterwards."""
    loop = Loop()
    made: list[AnyClient] = []

    def make(auth: Any = None, *, base_url: str = url, **options: Any) -> AnyClient:
        if kind == "threads":
            client = AnyClient(Client(base_url, auth, **options), None)
        else:
            client = AnyClient(AsyncClient(base_url, auth, **options), loop)
        made.append(client)
        return client

    yield make
    for client in made:
        client.do(lambda api: api.close())
    loop.close()
