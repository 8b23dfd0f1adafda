"""Remembers tokens whose signature was verified, so that it is verified once."""

import threading
from dataclasses import dataclass

from userapi_client.claims import AccessToken
from userapi_client.principal import Principal


@dataclass(slots=True, kw_only=True)
class SeenToken:
    """A token with a valid signature, and what is known about it beyond that."""

    token: AccessToken
    kid: str
    generation: int
    """The generation of the key set that verified it."""
    principal: Principal | None
    """As the token says; None until permissions that it omits are known."""
    by_events: Principal | None = None
    """As the token says, or as the service said when it was asked last."""
    asked: int = 0
    """The newest mark of revocations from before the service was asked last."""


class SeenTokens:
    """Tokens by their SHA-256. The oldest entry makes room for a new one."""

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
