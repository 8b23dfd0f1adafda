"""Load while a cluster fails: every request is recorded, so that what is lost can be counted.

An attempt that was answered 2xx is acknowledged. What was acknowledged and is not there afterwards
is lost.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

from tests.support.service_clients import PASSWORD, Answer, RecordingClient, until_answered
from userapi_client import Unavailable

PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request. `status` is 0 where no answer came."""

    began_at: float
    ended_at: float
    status: int
    code: str = ""
    subject: str = ""

    @property
    def succeeded(self) -> bool:
        """Return whether the service has acknowledged the request."""
        return 200 <= self.status < 300


@dataclass(slots=True)
class Record:
    """The attempts of one load; threads add to it."""

    _attempts: list[Attempt] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, attempt: Attempt) -> None:
        """Add an attempt that is over."""
        with self._lock:
            self._attempts.append(attempt)

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts so far, in the order in which they ended."""
        with self._lock:
            return sorted(self._attempts, key=lambda attempt: attempt.ended_at)

    @property
    def acknowledged(self) -> list[Attempt]:
        """The attempts that were answered 2xx."""
        return [attempt for attempt in self.attempts if attempt.succeeded]

    def succeeded_after(self, moment: float) -> int:
        """Return how many attempts that began after a moment have succeeded."""
        return sum(attempt.began_at >= moment for attempt in self.acknowledged)

    def seconds_until_success(self, moment: float) -> float:
        """Return how long after a moment the first success came; 0 if none was missing.

        Raises AssertionError if there was none.
        """
        ends = [a.ended_at for a in self.acknowledged if a.ended_at >= moment]
        assert ends, f"nothing succeeded any more: {summary(self.attempts[-20:])}"
        return ends[0] - moment

    def failed_after(self, moment: float) -> list[Attempt]:
        """Return the attempts that began after a moment and failed."""
        return [a for a in self.attempts if a.began_at >= moment and not a.succeeded]


def summary(attempts: Collection[Attempt]) -> dict[str, int]:
    """Count attempts by status and code, for the message of an assertion."""
    counts: dict[str, int] = {}
    for attempt in attempts:
        name = f"{attempt.status or 'no answer'} {attempt.code}".strip()
        counts[name] = counts.get(name, 0) + 1
    return counts


class Load:
    """Runs a step at a steady rate in several threads, from `with` to its end.

    A step that hangs holds up its own thread alone; the others keep to their share of the rate.
    """

    def __init__(self, step: Callable[[int], None], *, per_second: float, threads: int) -> None:
        self._step = step
        self._interval = threads / per_second
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(number, threads), daemon=True)
            for number in range(threads)
        ]

    @property
    def has_failed(self) -> bool:
        """Return whether a step has raised; the end of the load raises it again."""
        return self._failure is not None

    def _run(self, first: int, threads: int) -> None:
        number = first
        due = time.monotonic() + self._interval * first / threads
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                self._step(number)
                number += threads
                # What could not be sent in time is left out, not made up for.
                due = max(due + self._interval, time.monotonic())
        except BaseException as exc:
            self._failure = exc

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        if self._failure is not None:
            raise self._failure


def attempt(
    record: Record, send: Callable[[], Answer], subject: Callable[[Answer], str]
) -> Answer | None:
    """Send a request, record what came of it and return the answer, if there was one."""
    began_at = time.monotonic()
    try:
        answer = send()
    except Unavailable:
        record.add(Attempt(began_at=began_at, ended_at=time.monotonic(), status=0))
        return None
    body = answer.body if isinstance(answer.body, dict) else {}
    record.add(
        Attempt(
            began_at=began_at,
            ended_at=time.monotonic(),
            status=answer.status,
            code=str(body.get("code", "")),
            subject=subject(answer) if 200 <= answer.status < 300 else "",
        )
    )
    return answer


class Writes:
    """Creates users; the subjects of its record are their ids."""

    def __init__(self, base_urls: Sequence[str], token: str, *, prefix: str = "load") -> None:
        self.record = Record()
        self._clients = [RecordingClient(url, token=token) for url in base_urls]
        self._prefix = prefix

    def step(self, number: int) -> None:
        """Create one user."""
        client = self._clients[number % len(self._clients)]
        body = {
            "username": f"{self._prefix}{number}",
            "email": f"{self._prefix}{number}@example.com",
            "password": PASSWORD,
        }
        attempt(
            self.record,
            lambda: client.once("POST", "/api/v1/users/", body),
            lambda answer: str(answer.body["id"]),
        )

    def load(self, *, per_second: float = 30, threads: int = 10) -> Load:
        """Return the load; it runs while it is used as a context."""
        return Load(self.step, per_second=per_second, threads=threads)


class Checks:
    """Sends a token to an endpoint that authenticates, again and again."""

    def __init__(
        self, base_urls: Sequence[str], tokens: Sequence[str], path: str = "/api/v1/users/me"
    ) -> None:
        self.record = Record()
        self._path = path
        self._clients = [RecordingClient(url, token=t) for url in base_urls for t in tokens]

    def step(self, number: int) -> None:
        """Send one request."""
        client = self._clients[number % len(self._clients)]
        attempt(
            self.record,
            lambda: client.once("GET", self._path),
            lambda answer: client.token or "",
        )

    def load(self, *, per_second: float = 50, threads: int = 5) -> Load:
        """Return the load; it runs while it is used as a context."""
        return Load(self.step, per_second=per_second, threads=threads)


@dataclass(slots=True)
class Session:
    """A session as its client knows it: the newest tokens that it has received."""

    username: str
    client: RecordingClient
    refresh_token: str
    refreshes: int = 0
    ended_by: str | None = None


class Refreshes:
    """Refreshes sessions as honest clients do: without an answer they repeat the same token."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.record = Record()
        self.sessions = list(sessions)
        self._locks = [threading.Lock() for _ in sessions]

    def step(self, number: int) -> None:
        """Refresh one session, unless it has ended or its last refresh is still under way."""
        index = number % len(self.sessions)
        session, lock = self.sessions[index], self._locks[index]
        if session.ended_by is not None or not lock.acquire(blocking=False):
            time.sleep(PAUSE_SECONDS)
            return
        try:
            self._refresh(session)
        finally:
            lock.release()

    def refresh_all(self) -> None:
        """Refresh each session once, one after the other."""
        for session in self.sessions:
            if session.ended_by is None:
                self._refresh(session)

    def load(self, *, per_second: float = 20, threads: int | None = None) -> Load:
        """Return the load; it runs while it is used as a context."""
        return Load(self.step, per_second=per_second, threads=threads or len(self.sessions))

    @property
    def ended(self) -> dict[str, str]:
        """The sessions that the service has ended, with the code of its answer."""
        return {s.username: s.ended_by for s in self.sessions if s.ended_by is not None}

    def _refresh(self, session: Session) -> None:
        body = {"refresh_token": session.refresh_token}
        answer = attempt(
            self.record,
            lambda: session.client.once("POST", "/api/v1/auth/refresh", body),
            lambda answer: session.username,
        )
        if answer is None or answer.status == 503:
            return
        if answer.status == 200:
            session.refresh_token = str(answer.body["refresh_token"])
            session.client.token = str(answer.body["access_token"])
            session.refreshes += 1
        elif answer.status == 401:
            session.ended_by = str(answer.body["code"])


def log_in(base_url: str, username: str) -> Session:
    """Log a user in whose password is `PASSWORD`, and send nothing else: no copy is made."""
    client = RecordingClient(base_url)
    body = {"username": username, "password": PASSWORD}
    answer = until_answered(lambda: client.once("POST", "/api/v1/auth/login", body))
    assert answer.status == 200, answer.body
    client.token = str(answer.body["access_token"])
    return Session(username, client, str(answer.body["refresh_token"]))
