"""Caches the claims of access tokens: decoding a token takes a hundred times longer."""

import hashlib
import threading

from cachetools import TLRUCache

from userapi.authentication.token_claims import AccessClaims
from userapi.clock import Clock

MAX_CACHED_TOKENS = 4096


class ClaimsCache:
    """The claims of tokens that were verified with the keys of one generation.

    Claims leave the cache when their token expires. It is bounded; the least recently used are
    evicted first. The keys are hashes of the tokens: short, and of no use to an attacker who reads
    the memory.
    """

    def __init__(self, *, clock: Clock, max_tokens: int = MAX_CACHED_TOKENS) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._claims: TLRUCache[bytes, AccessClaims] = TLRUCache(
            max_tokens,
            ttu=lambda _key, claims, _now: claims.expires_at,
            timer=lambda: clock.now().timestamp(),
        )

    def find(self, token: str, *, generation: int) -> AccessClaims | None:
        """Return the claims of a token, or None. A new generation of keys empties the cache."""
        key = self._key_of(token)
        with self._lock:
            if generation != self._generation:
                self._claims.clear()
                self._generation = generation
            try:
                return self._claims[key]
            except KeyError:
                return None

    def add(self, token: str, claims: AccessClaims, *, generation: int) -> None:
        """Add the claims of a token that was verified with the keys of this generation."""
        with self._lock:
            if generation != self._generation:
                return  # Verified with former keys; another thread has seen the new ones.
            self._claims[self._key_of(token)] = claims

    @staticmethod
    def _key_of(token: str) -> bytes:
        # A lone surrogate has no encoding in UTF-8; such a token is rejected when it is decoded.
        return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
