"""Waiting in an event loop. `synchronous/runtime.py` defines the same names for threads."""

import asyncio
from asyncio import Event
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import httpx2

from userapi_client.base_url import tls_context
from userapi_client.errors import Unavailable
from userapi_client.permissions import DeferredPermissions, Permissions

__all__ = [
    "AsyncHttpClient",
    "AsyncTransport",
    "Event",
    "Tasks",
    "new_http_client",
    "owner",
    "permissions_from",
    "read_limited",
    "sleep",
    "wait_for",
]

AsyncHttpClient = httpx2.AsyncClient
AsyncTransport = httpx2.AsyncBaseTransport
sleep = asyncio.sleep


def owner() -> object:
    """Return the owner of locks and sockets: the running loop."""
    return asyncio.get_running_loop()


def new_http_client(
    base_url: str, *, timeout: float, transport: AsyncTransport | None
) -> AsyncHttpClient:
    """Return an HTTP client that follows no redirect and reads no environment variable."""
    return httpx2.AsyncClient(
        base_url=base_url,
        timeout=timeout,
        transport=transport,
        follow_redirects=False,
        trust_env=False,
        verify=tls_context(base_url),
        limits=httpx2.Limits(max_connections=100, max_keepalive_connections=20),
    )


async def wait_for(event: Event, seconds: float) -> bool:
    """Wait for an event; return whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def read_limited(
    http: AsyncHttpClient, request: httpx2.Request, *, seconds: float, max_bytes: int
) -> tuple[httpx2.Response, bytes]:
    """Send a request and read the response, with limits on its length and time.

    Raises httpx2.HTTPError, and ValueError for a response that exceeds a limit.
    """
    try:
        async with asyncio.timeout(seconds):
            response = await http.send(request, stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > max_bytes:
                        raise ValueError("The answer is too long.")
            finally:
                await response.aclose()
    except TimeoutError as exc:
        raise httpx2.ReadTimeout("The answer takes too long.", request=request) from exc
    return response, bytes(body)


async def permissions_from(
    load: Callable[[], Awaitable[Permissions]],
) -> tuple[Permissions, bool]:
    """Return permissions from the service, and whether they may be cached.

    They are read now, because a later use cannot await them. If reading fails, their first use
    raises.
    """
    try:
        return await load(), True
    except Unavailable as exc:
        unavailable = exc

    def fail() -> Permissions:
        raise unavailable

    return DeferredPermissions(fail), False


class Tasks:
    """Background work, which stops with the owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the work and return immediately."""
        task = asyncio.get_running_loop().create_task(work())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def end(self) -> None:
        """Cancel the work that still runs in this loop."""
        running: Iterable[asyncio.Task[None]] = [
            task for task in self._running if task.get_loop() is asyncio.get_running_loop()
        ]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
