"""Storing passwords.

NFKC → HMAC-SHA-384 keyed with the pepper (RFC 2104) → base64 → bcrypt. The pre-hash makes all bytes
significant, not only the first 72 as bcrypt does. The pepper is not in the database: without it, a
stolen table is of no use for guessing (OWASP Password Storage Cheat Sheet; NIST SP 800-63B-4
§3.1.1.2). A stored hash names its scheme and pepper, so both can change while users log in.
"""

import base64
import hmac
import re
import unicodedata
from dataclasses import dataclass

import bcrypt
import structlog

from userapi.errors import invalid_field
from userapi.passwords.hashing_pool import HashingPool
from userapi.passwords.legacy_hashes import (
    BCRYPT_SALT_AND_DIGEST,
    BcryptHash,
    HashTooCostly,
    LegacyHash,
    UnusableHash,
    read_legacy_hash,
)
from userapi.passwords.peppers import SCHEME, PepperMissing, Peppers

# The values of PASSWORD_HASH_ROUNDS, the cost of the service's own hashes.
OWN_COSTS = range(4, 17)
# NFKC composes at most four characters into one, so 128 characters are at most 512 before it. Its
# time is quadratic in the number of combining marks: 32 000 of them take a second.
MAX_TYPED_CHARACTERS = 4 * 128

_STORED = re.compile(rf"\$aima1\$([0-9a-f]{{8}})(\$2b\$([0-9]{{2}})\${BCRYPT_SALT_AND_DIGEST})")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a password matches, and if so whether its hash should be replaced."""

    matches: bool
    needs_rehash: bool = False


NO_MATCH = Verification(False)


class PasswordHasher:
    """Hashes and verifies passwords in the hashing pool."""

    def __init__(self, *, peppers: Peppers, rounds: int, pool: HashingPool) -> None:
        self._pepper_id = peppers.current_id
        self._peppers = peppers.by_id
        self._rounds = rounds
        self._pool = pool

    def require_room(self) -> None:
        """Raise Busy if the queue for hashing is full."""
        self._pool.require_room()

    def hash(self, password: str) -> str:
        """Return the hash to store for a password. Raises Busy, and Invalid for invalid text."""
        if not _is_hashable(password):
            raise invalid_field(
                "password", "Must not contain control characters.", "password_not_text"
            )
        secret = self._prehash(password, self._pepper_id)
        hashed = self._pool.run(lambda: bcrypt.hashpw(secret, bcrypt.gensalt(self._rounds)))
        return f"{SCHEME}{self._pepper_id}{hashed.decode()}"

    def verify(self, password: str, stored: str | None) -> Verification:
        """Return whether the password matches. Raises Busy, and PepperMissing if the pepper of the
        hash is not configured.

        Without a usable hash, a dummy is checked in the same time. A wrong password takes that time
        for a cheaper bcrypt hash, too. Other legacy hashes need the time of their own cost, until
        the user has logged in once.
        """
        if stored is None or not _is_text(password):
            return self._check_dummy()
        if stored.startswith(SCHEME):
            return self._verify_own(password, stored)
        try:
            legacy_hash = read_legacy_hash(stored)
        except HashTooCostly:
            # The user, whom the audit row of this log-in names, needs a password reset.
            log.error("password.hash_too_costly")
            return self._check_dummy()
        except UnusableHash:
            log.error("password.hash_unusable")
            return self._check_dummy()
        return self._verify_legacy(password.encode(), legacy_hash)

    def _verify_own(self, password: str, stored: str) -> Verification:
        parts = _STORED.fullmatch(stored)
        if parts is None or int(parts[3]) not in OWN_COSTS:
            log.error("password.hash_unusable")
            return self._check_dummy()
        pepper_id, hashed, cost = parts[1], parts[2].encode(), int(parts[3])
        if pepper_id not in self._peppers:
            log.error("password.pepper_unknown", pepper_id=pepper_id)
            self._check_dummy()
            raise PepperMissing()
        if not _is_hashable(password):
            return self._check_dummy()
        secret = self._prehash(password, pepper_id)
        if not self._pool.run(lambda: self._check(BcryptHash(hashed, cost), secret)):
            return NO_MATCH
        return Verification(True, pepper_id != self._pepper_id or cost != self._rounds)

    def _verify_legacy(self, password: bytes, legacy_hash: LegacyHash) -> Verification:
        if not self._pool.run(lambda: self._check(legacy_hash, password)):
            return NO_MATCH
        return Verification(True, needs_rehash=True)

    def _check_dummy(self) -> Verification:
        """Use the time of one check, and return no match."""
        self._pool.run(lambda: _spend(self._rounds))
        return NO_MATCH

    def _check(self, hashed: LegacyHash, secret: bytes) -> bool:
        if hashed.matches(secret):
            return True
        if isinstance(hashed, BcryptHash):
            # 2^c + 2^c + 2^(c+1) + … + 2^(n-1) = 2^n: a cheaper hash takes the time of a dummy, so
            # that after the rounds were raised the time does not reveal which accounts exist.
            for cost in range(hashed.cost, self._rounds):
                _spend(cost)
        return False

    def _prehash(self, password: str, pepper_id: str) -> bytes:
        text = unicodedata.normalize("NFKC", password).encode()
        return base64.b64encode(hmac.digest(self._peppers[pepper_id], text, "sha384"))


def _spend(cost: int) -> None:
    # Any well-formed hash takes the time of its cost. No known password matches this one.
    bcrypt.checkpw(b"dummy", f"$2b${cost:02d}${'.' * 53}".encode())


def _is_text(password: str) -> bool:
    """Return whether this can be typed text: no lone surrogate, no NUL."""
    return "\0" not in password and not any("\ud800" <= c <= "\udfff" for c in password)


def _is_hashable(password: str) -> bool:
    return len(password) <= MAX_TYPED_CHARACTERS and _is_text(password)
