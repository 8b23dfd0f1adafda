"""Storing passwords.

NFKC → HMAC-SHA-384 keyed with the pepper (RFC 2104) → base64 → bcrypt. The pre-hash makes bytes
past bcrypt's 72 count, and without the pepper, which is not in the database, a stolen table cannot
be searched (OWASP Password Storage Cheat Sheet; NIST SP 800-63B-4 §3.1.1.2). The text that is
stored names scheme and pepper, so each can be changed while people log in.
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
    ForeignHash,
    HashTooCostly,
    UnusableHash,
    read_legacy_hash,
)
from userapi.passwords.peppers import SCHEME, PepperMissing, Peppers

# What PASSWORD_HASH_ROUNDS can be: the operator decides what the service's own hashes cost.
OWN_COSTS = range(4, 17)
# NFKC makes at most four characters into one, so 128 of them were at most 512. It is quadratic in a
# run of combining marks: 32 000 of them take a second.
MAXIMUM_TYPED_CHARACTERS = 4 * 128

_STORED = re.compile(rf"\$aima1\$([0-9a-f]{{8}})(\$2b\$([0-9]{{2}})\${BCRYPT_SALT_AND_DIGEST})")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a password is right, and if so whether what is stored should be made anew."""

    matches: bool
    needs_rehash: bool = False


NO_MATCH = Verification(False)


class PasswordHasher:
    """Hashes and checks passwords, inside the gate."""

    def __init__(self, *, peppers: Peppers, rounds: int, gate: HashingPool) -> None:
        self._pepper_id = peppers.current_id
        self._peppers = peppers.by_id
        self._rounds = rounds
        self._gate = gate

    def require_room(self) -> None:
        """Raise Busy where too many wait for a hash already."""
        self._gate.require_room()

    def hash(self, password: str) -> str:
        """Return what to store for a password. Raises Busy, and Invalid for what is no text."""
        if not _is_hashable(password):
            raise invalid_field(
                "password", "Must not contain control characters.", "password_not_text"
            )
        secret = self._prehash(password, self._pepper_id)
        hashed = self._gate.run(lambda: bcrypt.hashpw(secret, bcrypt.gensalt(self._rounds)))
        return f"{SCHEME}{self._pepper_id}{hashed.decode()}"

    def verify(self, password: str, stored: str | None) -> Verification:
        """Return whether the password fits. Raises Busy, and PepperMissing for a hash whose
        pepper is not configured.

        Without a hash, or with one that cannot be used, a dummy is checked: the time is the same. A
        wrong password takes as long for a cheaper bcrypt hash; for the other foreign hashes it
        takes the time that their cost asks for, until the account has logged in once.
        """
        if stored is None or not _is_text(password):
            return self._check_dummy()
        if stored.startswith(SCHEME):
            return self._verify_own(password, stored)
        try:
            foreign = read_legacy_hash(stored)
        except HashTooCostly:
            # Its user needs a reset; the audit row of this log-in names them.
            log.error("password.hash_too_costly")
            return self._check_dummy()
        except UnusableHash:
            log.error("password.hash_unusable")
            return self._check_dummy()
        return self._verify_foreign(password.encode(), foreign)

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
        if not self._gate.run(lambda: self._check(BcryptHash(hashed, cost), secret)):
            return NO_MATCH
        return Verification(True, pepper_id != self._pepper_id or cost != self._rounds)

    def _verify_foreign(self, password: bytes, foreign: ForeignHash) -> Verification:
        if not self._gate.run(lambda: self._check(foreign, password)):
            return NO_MATCH
        return Verification(True, needs_rehash=True)

    def _check_dummy(self) -> Verification:
        """Spend the time of one check and answer no."""
        self._gate.run(lambda: _spend(self._rounds))
        return NO_MATCH

    def _check(self, hashed: ForeignHash, secret: bytes) -> bool:
        if hashed.matches(secret):
            return True
        if isinstance(hashed, BcryptHash):
            # 2^c + 2^c + 2^(c+1) + … + 2^(n-1) = 2^n: a cheaper hash costs what a dummy costs, so
            # that the time does not tell an old account from none after the rounds were raised.
            for cost in range(hashed.cost, self._rounds):
                _spend(cost)
        return False

    def _prehash(self, password: str, pepper_id: str) -> bytes:
        text = unicodedata.normalize("NFKC", password).encode()
        return base64.b64encode(hmac.digest(self._peppers[pepper_id], text, "sha384"))


def _spend(cost: int) -> None:
    # Any well-formed hash takes the time of its cost; nobody finds what this one is the hash of.
    bcrypt.checkpw(b"dummy", f"$2b${cost:02d}${'.' * 53}".encode())


def _is_text(password: str) -> bool:
    """Return whether this can be text that someone typed: no lone surrogate, no NUL."""
    return "\0" not in password and not any("\ud800" <= c <= "\udfff" for c in password)


def _is_hashable(password: str) -> bool:
    return len(password) <= MAXIMUM_TYPED_CHARACTERS and _is_text(password)
