"""Runs one piece of work at a time for each key; concurrent callers share its outcome."""

import copy
import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from userapi_client.asynchronous.runtime import Event
from userapi_client.errors import UserApiError

T = TypeVar("T")


class _Flight(Generic[T]):
    """Work in progress, and its outcome; None if its caller was interrupted."""

    __slots__ = ("error", "landed", "values")

    def __init__(self) -> None:
        self.landed = Event()
        self.values: list[T] = []
        self.error: UserApiError | None = None


class AsyncFlights(Generic[T]):
    """Shares outcomes, including errors. Nothing is stored after the work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Flight[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome of `work`, or of the same work in progress."""
        while True:
            with self._lock:
                flight = self._open.get(key)
                if flight is None:
                    own = self._open[key] = _Flight()
                    break
            await flight.landed.wait()
            if flight.error is not None:
                raise copy.copy(flight.error)
            if flight.values:
                return flight.values[0]
        try:
            own.values.append(await work())
        except UserApiError as exc:
            own.error = exc
            raise
        finally:
            with self._lock:
                del self._open[key]
            own.landed.set()
        return own.values[0]
