"""Peppers: which ones the stored hashes need, and whether all of them are configured.

A hash contains a fingerprint of its pepper, which does not reveal it. The fingerprints are indexed:
finding the needed ones takes one lookup for each, independent of the number of users. Without its
pepper a correct password does not match, so such a log-in is not counted as a failure.
"""

import hmac
import threading
import time
from collections.abc import Iterable

from sqlalchemy import Connection, text

from userapi.errors import Unavailable
from userapi.infrastructure.database import reading

SCHEME = "$aima1$"
COUNTED_UP_TO = 10_000
KEPT_SECONDS = 10.0

# The expressions are those of the partial index `ix_users_password_hash_peppers`. The query follows
# it from one fingerprint to the next; DISTINCT would read every row. A rotation adds one
# fingerprint: the limit is for a table with corrupt hashes.
NEEDED = """
    WITH RECURSIVE needed(pepper) AS (
        SELECT (
            SELECT substr(password_hash, 8, 8) FROM users
            WHERE substr(password_hash, 1, 7) = '$aima1$'
            ORDER BY substr(password_hash, 8, 8) LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT substr(password_hash, 8, 8) FROM users
            WHERE substr(password_hash, 1, 7) = '$aima1$'
                AND substr(password_hash, 8, 8) > needed.pepper
            ORDER BY substr(password_hash, 8, 8) LIMIT 1
        ) FROM needed WHERE needed.pepper IS NOT NULL
    )
    SELECT pepper FROM needed WHERE pepper IS NOT NULL LIMIT 20
    """
_NEEDED = text(NEEDED)
_COUNT = text(
    """
    SELECT COUNT(*) FROM (
        SELECT 1 FROM users
        WHERE substr(password_hash, 1, 7) = '$aima1$'
            AND substr(password_hash, 8, 8) = :pepper
        LIMIT :most
    ) AS counted
    """
)


class PepperMissing(Unavailable):
    """A hash needs a pepper that is not configured, so no password can be verified."""

    def __init__(self) -> None:
        super().__init__(retry_after=30)


def pepper_id(pepper: str) -> str:
    """Return the fingerprint of a pepper, which does not reveal it (HMAC, 32 bits)."""
    return hmac.digest(pepper.encode(), b"pepper-id", "sha384").hex()[:8]


class Peppers:
    """The configured peppers, and the comparison with those that hashes need."""

    def __init__(self, pepper: str, former_peppers: Iterable[str] = ()) -> None:
        self.current_id = pepper_id(pepper)
        self.by_id = {pepper_id(text): text.encode() for text in (*former_peppers, pepper)}
        self._lock = threading.Lock()
        self._any_missing = False
        self._known_until = 0.0

    def missing_of(self, needed: Iterable[str]) -> list[str]:
        """Return the needed peppers that are not configured."""
        return sorted(set(needed) - set(self.by_id))

    def missing(self, connection: Connection) -> list[str]:
        """Return the peppers that hashes need and that are not configured."""
        return self.missing_of(connection.execute(_NEEDED).scalars())

    def counts(self, connection: Connection) -> dict[str, int]:
        """Return how many hashes need each pepper, up to a limit; 0 for unused ones."""
        needed = set(connection.execute(_NEEDED).scalars()) | set(self.by_id)
        return {
            pepper: int(
                connection.execute(_COUNT, {"pepper": pepper, "most": COUNTED_UP_TO}).scalar_one()
            )
            for pepper in sorted(needed)
        }

    def is_any_missing(self) -> bool:
        """Return whether a pepper is missing. The result is cached for ten seconds."""
        with self._lock:
            if time.monotonic() >= self._known_until:
                with reading() as connection:
                    self._any_missing = bool(self.missing(connection))
                self._known_until = time.monotonic() + KEPT_SECONDS
            return self._any_missing
