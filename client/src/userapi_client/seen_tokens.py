"""Caches tokens whose signature was verified, so that it is verified once."""

import threading
from dataclasses import dataclass

from userapi_client.claims import AccessToken
from userapi_client.principal import Principal


@dataclass(slots=True, kw_only=True)
class SeenToken:
    """A token with a valid signature, and its known state."""

    token: AccessToken
    kid: str
    generation: int
    """The generation of the key set that verified it."""
    principal: Principal | None
    """The permissions of the token; None until permissions that it omits are read."""
    by_events: Principal | None = None
    """From the token, or from the last response of the service about it."""
    asked: int = 0
    """The newest mark of revocations from before the last query to the service."""


class SeenTokens:
    """Tokens by their SHA-256. If the cache is full, a new entry replaces the oldest one."""

    def __init__(self, *, size: int) -> None:
        self._size = max(1, size)
        self._entries: dict[bytes, SeenToken] = {}
        self._lock = threading.Lock()
        self.find = self._entries.get

    def keep(self, digest: bytes, seen: SeenToken) -> None:
        """Add an entry or replace it."""
        with self._lock:
            self._entries.pop(digest, None)
            while len(self._entries) >= self._size:
                del self._entries[next(iter(self._entries))]
            self._entries[digest] = seen

    def renew(self) -> None:
        """Replace a lock that was held when the process was forked."""
        self._lock = threading.Lock()
