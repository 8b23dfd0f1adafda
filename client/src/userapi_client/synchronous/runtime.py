"""Waiting in threads. `asynchronous/runtime.py` defines the same names for event loops."""

import os
import threading
import time
from collections.abc import Callable
from threading import Event

import httpx2

from userapi_client.base_url import tls_context
from userapi_client.permissions import DeferredPermissions, Permissions

__all__ = [
    "Event",
    "HttpClient",
    "Tasks",
    "Transport",
    "new_http_client",
    "owner",
    "permissions_from",
    "read_limited",
    "sleep",
    "wait_for",
]

HttpClient = httpx2.Client
Transport = httpx2.BaseTransport
sleep = time.sleep


class _Process:
    """Identifies this process; a fork gets another object."""

    current: object = object()

    @classmethod
    def renew(cls) -> None:
        cls.current = object()


os.register_at_fork(after_in_child=_Process.renew)


def owner() -> object:
    """Return the owner of locks and sockets: this process."""
    return _Process.current


def new_http_client(base_url: str, *, timeout: float, transport: Transport | None) -> HttpClient:
    """Return an HTTP client that follows no redirect and reads no environment variable."""
    return httpx2.Client(
        base_url=base_url,
        timeout=timeout,
        transport=transport,
        follow_redirects=False,
        trust_env=False,
        verify=tls_context(base_url),
        limits=httpx2.Limits(max_connections=100, max_keepalive_connections=20),
    )


def wait_for(event: Event, seconds: float) -> bool:
    """Wait for an event; return whether it happened."""
    return event.wait(seconds)


def read_limited(
    http: HttpClient, request: httpx2.Request, *, seconds: float, max_bytes: int
) -> tuple[httpx2.Response, bytes]:
    """Send a request and read the response, with limits on its length and time.

    Raises httpx2.HTTPError, and ValueError for a response that exceeds a limit.
    """
    deadline = time.monotonic() + seconds
    response = http.send(request, stream=True)
    try:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > max_bytes:
                raise ValueError("The answer is too long.")
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout("The answer takes too long.", request=request)
    finally:
        response.close()
    return response, bytes(body)


def permissions_from(load: Callable[[], Permissions]) -> tuple[Permissions, bool]:
    """Return permissions from the service, and whether they may be cached.

    They are read when they are first used.
    """
    return DeferredPermissions(load), True


class Tasks:
    """Background work, on threads that do not keep the process alive."""

    def start(self, work: Callable[[], None]) -> None:
        """Start the work and return immediately."""
        threading.Thread(target=work, name="userapi-client", daemon=True).start()

    def end(self) -> None:
        """Let running work finish: its time-out limits it."""
