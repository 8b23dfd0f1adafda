"""A client that does not give up: it repeats a request until the service has answered it."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

PASSWORD = "violet-harbour-93-lantern"
ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.1


class GaveUp(Exception):
    """The service did not answer for too long."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer of the service."""

    status: int
    body: Any
    replayed: bool


class PersistentClient:
    """Sends requests to a service whose processes may be killed at any moment."""

    def __init__(self, base_url: str, *, token: str | None = None, tally: Tally | None = None):
        self.base_url = base_url
        self.token = token
        self.tally = tally or Tally()

    def log_in(self, username: str) -> None:
        """Send the token of this user from now on."""
        body = {"username": username, "password": PASSWORD}
        self.token = str(self.persist("POST", "/api/v1/auth/login", body).body["access_token"])

    def once(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """Send a request once: a body of bytes as NDJSON, any other as JSON.

        Raises OSError or HTTPException if there is no reply.
        """
        is_file = isinstance(body, bytes)
        headers = {"Content-Type": "application/x-ndjson" if is_file else "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(
            self.base_url + path,
            method=method,
            headers=headers,
            data=body if is_file or body is None else json.dumps(body).encode(),
        )
        self.tally.add(requests=1)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                replayed = answer.headers.get("Idempotent-Replay") == "true"
                return Answer(answer.status, json.loads(answer.read() or b"null"), replayed)
        except urllib.error.HTTPError as exc:
            with exc:
                return Answer(exc.code, json.loads(exc.read() or b"null"), False)

    def persist(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        for_seconds: float = 90.0,
    ) -> Answer:
        """Send a request until it is answered by something else than "try again". Raises GaveUp."""
        deadline = time.monotonic() + for_seconds
        while time.monotonic() < deadline:
            try:
                answer = self.once(method, path, body, key=key)
            except (OSError, http.client.HTTPException):
                self.tally.add(lost_answers=1)
            else:
                in_progress = answer.status == 409 and answer.body["code"] == "request_in_progress"
                if answer.status != 503 and not in_progress:
                    self.tally.add(replays=int(answer.replayed))
                    return answer
                self.tally.add(unavailable=1)
            time.sleep(PAUSE_SECONDS)
        raise GaveUp(f"{method} {path}")
