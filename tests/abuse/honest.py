"""Honest users: they log in, read, list and refresh at a fixed rate, and time every answer.

Each request has a due moment, and its latency counts from that moment, so a service that stalls
cannot hide behind a client that waits for it.
"""

import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any

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
    """One user on one address, with a connection that is kept open between requests."""

    def __init__(self, port: int, source: str, username: str) -> None:
        self._address = ("127.0.0.1", port)
        self._source = source
        self._username = username
        self._connection: http.client.HTTPConnection | None = None
        self._pair: dict[str, Any] = {}

    def log_in(self) -> str | None:
        """Log in; return what went wrong, or None."""
        body = {"username": self._username, "password": PASSWORD}
        return self._keep(self._request("POST", "/api/v1/auth/login", body))

    def refresh(self) -> str | None:
        """Exchange the refresh token; return what went wrong, or None."""
        body = {"refresh_token": self._pair["refresh_token"]}
        return self._keep(self._request("POST", "/api/v1/auth/refresh", body))

    def read(self) -> str | None:
        """Read the own profile; return what went wrong, or None."""
        return self._expect_200(self._request("GET", "/api/v1/users/me"))

    def list_sessions(self) -> str | None:
        """List the own sessions; return what went wrong, or None."""
        return self._expect_200(self._request("GET", "/api/v1/auth/sessions"))

    def _keep(self, answer: tuple[int, Any]) -> str | None:
        if answer[0] == 200:
            self._pair = answer[1]
        return self._expect_200(answer)

    @staticmethod
    def _expect_200(answer: tuple[int, Any]) -> str | None:
        status, body = answer
        return None if status == 200 else f"{status} {body.get('code')}"

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if body is None:
            headers["Authorization"] = f"Bearer {self._pair['access_token']}"
        text = None if body is None else json.dumps(body)
        # A kept connection may have been closed while it was idle: one more try on a new one.
        for is_last in (False, True):
            reused = self._connection is not None
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    *self._address, timeout=ANSWER_SECONDS, source_address=(self._source, 0)
                )
            try:
                self._connection.request(method, path, body=text, headers=headers)
                answer = self._connection.getresponse()
                return answer.status, json.loads(answer.read() or b"{}")
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
                self._connection.close()
                self._connection = None
                if is_last or not reused:
                    raise
        raise AssertionError("unreachable")


# What each user does in a cycle of ten seconds: (second, operation).
CYCLE = [(float(second), "read") for second in range(10)] + [(2.5, "list"), (7.5, "refresh")]
LOG_IN_EVERY_CYCLES = 6


def behave_honestly(users: list[HonestUser], *, seconds: float) -> Latencies:
    """Let every user work for so long and return what they saw."""
    latencies = Latencies()
    for user in users:
        # One after another, before the first measured request: hashes would delay it.
        failure = user.log_in()
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
    operations = {"read": user.read, "list": user.list_sessions, "refresh": user.refresh}
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
            try:
                failure = operation()
            except (OSError, http.client.HTTPException) as exc:
                failure = type(exc).__name__
            latencies.add(name, (time.monotonic() - due) * 1000, failure)
        cycle += 1
