"""The published keys: fetched in the background, once at a time, and cached while they are usable.

A caller with a cached key never waits for a fetch. Invented key ids cause at most one fetch in
`retry` seconds.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from userapi_client.asynchronous.runtime import (
    AsyncHttpClient,
    Event,
    Tasks,
    read_limited,
    wait_for,
)
from userapi_client.errors import TokenRefused, Unavailable, UserApiError
from userapi_client.key_set import KeySet, read_keys

log = logging.getLogger("userapi_client")

PATH = "/.well-known/jwks.json"
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    """How long keys are fresh and usable, and the time between two fetches, in seconds."""

    fresh: float
    usable: float
    retry: float
    timeout: float


class AsyncKeys:
    """The keys of one algorithm."""

    def __init__(
        self,
        *,
        algorithm: str,
        times: KeyTimes,
        clock: Callable[[], float],
        http: Callable[[], AsyncHttpClient],
    ) -> None:
        self._algorithm = algorithm
        self._times = times
        self._clock = clock
        self._http = http
        self._lock = threading.Lock()
        self._tasks = Tasks()
        self._set = KeySet({}, 0)
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: Event | None = None
        self._closed = False

    @property
    def generation(self) -> int:
        """A number that increases when the keys change."""
        return self._set.generation

    def are_fresh(self, now: float) -> bool:
        """Return whether the keys need no fetch."""
        return 0 <= now - self._fetched_at <= self._times.fresh

    def are_usable(self, now: float) -> bool:
        """Return whether tokens may be verified with the keys."""
        return now - self._fetched_at <= self._times.usable

    async def find(self, kid: str) -> KeySet:
        """Return a set that contains the key with this id. Raises TokenRefused, Unavailable."""
        now, found = self._clock(), self._set
        if kid in found.keys and self.are_usable(now):
            if not self.are_fresh(now):
                self._begin_fetch(now)
            return found
        await self.fetch()
        found = self._set
        if kid not in found.keys:
            raise TokenRefused("token_invalid")
        return found

    async def fetch(self) -> None:
        """Fetch the keys, unless that was tried recently. Raises Unavailable without keys."""
        fetching = self._begin_fetch(self._clock())
        if fetching is not None:
            await wait_for(fetching, 2 * self._times.timeout)
        now = self._clock()
        if not self.are_usable(now):
            wait = self._tried_at + self._times.retry - now
            raise Unavailable(min(max(wait, 1.0), self._times.retry))

    def renew(self) -> None:
        """Drop a fetch that another process or loop has started."""
        self._lock = threading.Lock()
        self._tasks = Tasks()
        self._fetching = None

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        self._closed = True
        await self._tasks.end()

    def _begin_fetch(self, now: float) -> Event | None:
        """Start a fetch if one is due; return the fetch in progress."""
        with self._lock:
            fetching = self._fetching
            if fetching is None and not 0 <= now - self._tried_at < self._times.retry:
                self._tried_at = now
                self._fetching = fetching = Event()
                self._tasks.start(self._fetch)
            return fetching

    async def _fetch(self) -> None:
        begun_at, fetching = self._tried_at, self._fetching
        try:
            http = self._http()
            response, body = await read_limited(
                http,
                http.build_request("GET", PATH),
                seconds=self._times.timeout,
                max_bytes=MAX_BYTES,
            )
            if response.status_code != 200:
                raise ValueError(f"The response has the status {response.status_code}.")
            keys = read_keys(body, algorithm=self._algorithm, known=self._set.keys)
        except (httpx2.HTTPError, ValueError, RuntimeError, UserApiError) as exc:
            # RuntimeError: closed meanwhile. The old keys are used while they are usable.
            if not self._closed:
                log.warning("userapi.keys_not_fetched: %s", exc)
        else:
            self._set = self._set.with_keys(keys)
            self._fetched_at = begun_at
        finally:
            with self._lock:
                if self._fetching is fetching:
                    self._fetching = None
            if fetching is not None:
                fetching.set()
