"""Clients of a service whose processes may end at any moment, on the client package."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2

from userapi_client import Client, Login, Problem, Tokens, Unavailable

T = TypeVar("T")
PASSWORD = "violet-harbour-93-lantern"
ANSWER_SECONDS = 15.0
PATIENCE_SECONDS = 90.0
PAUSE_SECONDS = 0.1
# So many that the time ends first.
MANY_RETRIES = 10_000


@dataclass(slots=True)
class Tally:
    """What it took; shared by threads."""

    requests: int = 0
    lost_answers: int = 0
    unavailable: int = 0
    replays: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **counts: int) -> None:
        """Count up."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class CountingTransport(httpx2.BaseTransport):
    """Sends each request on a connection of its own, and counts what came of it.

    Each connection may reach another process of the service.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        # Without TLS, because loading certificates takes long.
        self._transport = httpx2.HTTPTransport(
            verify=False, limits=httpx2.Limits(max_keepalive_connections=0)
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        self._tally.add(requests=1)
        try:
            response = self._transport.handle_request(request)
        except httpx2.TransportError:
            self._tally.add(lost_answers=1)
            raise
        self._tally.add(
            unavailable=int(response.status_code == 503), replays=int(is_replay(response))
        )
        return response

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()


def is_replay(response: httpx2.Response) -> bool:
    """Return whether the service has sent the response of an earlier request again."""
    return response.headers.get("Idempotent-Replay") == "true"


def persistent_client(
    base_url: str, auth: Login | Tokens | None, tally: Tally | None = None
) -> Client:
    """Return a client that sends again what may be sent again, for 90 seconds."""
    return Client(
        base_url,
        auth,
        timeout=ANSWER_SECONDS,
        retries=MANY_RETRIES,
        budget=PATIENCE_SECONDS,
        transport=CountingTransport(tally or Tally()),
    )


def until_answered(send: Callable[[], T]) -> T:
    """Call this again for 90 seconds, until the service is available. Raises Unavailable.

    For what the client does not repeat by itself: the service may have done it already.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return send()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def log_in(base_url: str, username: str, password: str = PASSWORD) -> Tokens:
    """Log a user in, also if the service is away for a while."""
    with Client(base_url, Login(username, password)) as client:
        # Not `auth.me`: the previous release returns fewer members.
        until_answered(lambda: client.request("GET", "/api/v1/auth/me"))
        assert client.tokens is not None
        return client.tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the service, whatever its status."""

    status: int
    body: Any
    replayed: bool


class RecordingClient:
    """Sends each request once with a given token, and returns every reply, also a refusal.

    For tests of what the service answers to each single request.
    """

    def __init__(self, base_url: str, *, token: str | None = None) -> None:
        self._base_url = base_url
        self.token = token
        self._client = Client(
            base_url, timeout=ANSWER_SECONDS, retries=0, transport=CountingTransport(Tally())
        )

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self._base_url

    def at(self, base_url: str) -> "RecordingClient":
        """Return a client of another process that sends the same token."""
        return RecordingClient(base_url, token=self.token)

    def log_in(self, username: str) -> None:
        """Send the token of this user from now on."""
        self.token = log_in(self.base_url, username).access_token

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def once(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """Send a request once, with a JSON body unless `body` is None. Raises Unavailable."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        try:
            response = self._client.request(
                method, path, json=body, headers=headers, idempotency_key=key
            )
        except Problem as problem:
            return Answer(problem.status, problem.body, False)
        return Answer(
            response.status_code, json.loads(response.content or b"null"), is_replay(response)
        )


def ask(
    base_url: str, method: str, path: str, body: Any = None, *, token: str | None = None
) -> tuple[int, Any]:
    """Send one request; return the status and the body of the reply, also of a refusal."""
    with closing(RecordingClient(base_url, token=token)) as client:
        answer = client.once(method, path, body)
        return answer.status, answer.body
