"""Honest users and services: they work at a fixed rate, and time every answer.

Each request has a due moment, and its latency counts from that moment, so a service that stalls
cannot hide behind a client that waits for it.
"""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from userapi_client import Client, ClientCredentials, Problem, Tokens, UserApiError

PASSWORD = "violet-harbour-93-lantern"
ANSWER_SECONDS = 60.0


@dataclass(slots=True)
class Latencies:
    """Latencies in milliseconds and failures, by operation."""

    measured: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, operation: str, milliseconds: float, failure: str | None) -> None:
        """Record one request."""
        with self._lock:
            self.measured.setdefault(operation, []).append(milliseconds)
            if failure is not None:
                self.failures.append(f"{operation}: {failure}")

    def p99(self, operation: str) -> float:
        """Return the 99th percentile of an operation in milliseconds."""
        return statistics.quantiles(self.measured[operation], n=100)[-1]


class HonestUser:
    """One user and one service on one address, with a connection that stays open."""

    def __init__(
        self, base_url: str, source: str, username: str, machine: ClientCredentials
    ) -> None:
        self._username = username
        self._machine = machine
        self._tokens = Tokens("", "")
        # Nothing is sent again: each refusal counts.
        self._client = Client(
            base_url,
            timeout=ANSWER_SECONDS,
            retries=0,
            transport=httpx2.HTTPTransport(verify=False, local_address=source),
        )

    def log_in(self) -> None:
        """Log in. This and all other operations raise UserApiError."""
        self._keep("/auth/login", {"username": self._username, "password": PASSWORD})

    def refresh(self) -> None:
        """Exchange the refresh token."""
        self._keep("/auth/refresh", {"refresh_token": self._tokens.refresh_token})

    def read(self) -> None:
        """Read the own profile."""
        self._get("/users/me", self._tokens.access_token)

    def list_sessions(self) -> None:
        """List the own sessions."""
        self._get("/auth/sessions", self._tokens.access_token)

    def use_key(self) -> None:
        """Send the key of the service."""
        self._get("/auth/verify", self._machine.client_secret)

    def fetch_token(self) -> None:
        """Fetch a token for the service."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self._machine.client_id,
            "client_secret": self._machine.client_secret,
        }
        self._client.request("POST", "/auth/token", data=form)

    def _get(self, path: str, token: str) -> None:
        self._client.request("GET", path, headers={"Authorization": f"Bearer {token}"})

    def _keep(self, path: str, body: dict[str, str]) -> None:
        pair = self._client.request("POST", path, json=body).json()
        self._tokens = Tokens(pair["access_token"], pair["refresh_token"])


# What each user does in a cycle of ten seconds: (second, operation).
CYCLE = [(float(second), "read") for second in range(10)] + [
    (1.5, "use key"),
    (2.5, "list"),
    (4.5, "use key"),
    (6.5, "fetch token"),
    (7.5, "refresh"),
]
LOG_IN_EVERY_CYCLES = 6


def behave_honestly(users: list[HonestUser], *, seconds: float) -> Latencies:
    """Let every user work for so long and return what they saw."""
    latencies = Latencies()
    for user in users:
        # One after another, before the first measured request: hashes would delay it.
        failure = _failure_of(user.log_in)
        if failure is not None:
            latencies.add("first log-in", 0.0, failure)
    begun = time.monotonic()
    threads = [
        threading.Thread(target=_work, args=(user, number, begun, seconds, latencies))
        for number, user in enumerate(users)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def _work(
    user: HonestUser, number: int, begun: float, seconds: float, latencies: Latencies
) -> None:
    operations = {
        "read": user.read,
        "list": user.list_sessions,
        "refresh": user.refresh,
        "use key": user.use_key,
        "fetch token": user.fetch_token,
    }
    cycle = 0
    while cycle * 10 < seconds:
        moments = [(second, name) for second, name in CYCLE]
        # In different cycles, so that honest users alone make no storm of log-ins.
        if (cycle + number) % LOG_IN_EVERY_CYCLES == LOG_IN_EVERY_CYCLES - 1:
            moments.append((5.2, "log in"))
        for second, name in sorted(moments):
            due = begun + number * 0.13 + cycle * 10 + second
            time.sleep(max(0.0, due - time.monotonic()))
            operation = user.log_in if name == "log in" else operations[name]
            failure = _failure_of(operation)
            latencies.add(name, (time.monotonic() - due) * 1000, failure)
        cycle += 1


def _failure_of(operation: Callable[[], None]) -> str | None:
    try:
        operation()
    except Problem as problem:
        return f"{problem.status} {problem.code}"
    except UserApiError as exc:
        return type(exc).__name__
    return None
