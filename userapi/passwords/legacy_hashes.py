"""Password hashes imported from other systems.

An imported account logs in with its old password once; the service then replaces the hash by one
of its own. Hashes are parsed strictly and have one budget: a check needs at most 64 MiB and at most
the time of bcrypt at cost 14, over all parameters together, so that an import cannot make one
log-in take a minute or exhaust the memory. A stored hash over the budget is not checked either.
Passwords are checked as typed, because the other systems do not normalize them.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Protocol

import argon2
import bcrypt

from userapi.errors import FieldError, Invalid

BCRYPT_BYTES = 72
MAX_MEMORY_BYTES = 64 * 1024 * 1024
BCRYPT_COSTS = range(4, 15)
# `make bench-hashes` compares these limits with bcrypt at cost 14.
MAX_PBKDF2_ITERATIONS = 2_200_000
# N · r · p.
MAX_SCRYPT_WORK = 1_900_000
# Passes × KiB. Each pass starts a thread for each lane four times, which costs as much as 128 KiB.
MAX_ARGON2_WORK = 680_000
ARGON2_LANE_KIB = 128
MAX_ARGON2_LANES = 16
ARGON2_SALT_BYTES = range(8, 65)
ARGON2_DIGEST_BYTES = range(16, 65)
SHA256_BYTES = 32

# The last characters of salt and digest have unused bits, which must be zero.
BCRYPT_SALT_AND_DIGEST = r"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"

_NUMBER = "([1-9][0-9]{0,9})"
_SALT = r"([!-#%-~]{1,128})"
_BCRYPT = re.compile(rf"\$2[aby]\$([0-9]{{2}})\${BCRYPT_SALT_AND_DIGEST}")
_ARGON2ID = re.compile(
    rf"\$argon2id\$v=19\$m={_NUMBER},t={_NUMBER},p={_NUMBER}"
    r"\$([A-Za-z0-9+/]{1,128})\$([A-Za-z0-9+/]{1,128})"
)
_DJANGO = re.compile(rf"pbkdf2_sha256\${_NUMBER}\${_SALT}\$([A-Za-z0-9+/]{{43}}=)")
_WERKZEUG = re.compile(rf"scrypt:{_NUMBER}:{_NUMBER}:{_NUMBER}\${_SALT}\$([0-9a-f]{{128}})")


class UnusableHash(Invalid):
    """The text is not a supported hash, or checking it takes too much time or memory."""


class HashTooCostly(UnusableHash):
    """Checking this hash takes more time or memory than a log-in may."""


class LegacyHash(Protocol):
    """A hash of another system with valid syntax and acceptable cost."""

    def matches(self, password: bytes) -> bool:
        """Return whether the password matches."""
        ...


@dataclass(frozen=True, slots=True)
class BcryptHash:
    """bcrypt in the format of PHP, Ruby, Node and others."""

    text: bytes
    cost: int

    def matches(self, password: bytes) -> bool:
        """Return whether the password matches; only 72 bytes count, as in these systems."""
        return bcrypt.checkpw(password[:BCRYPT_BYTES], self.text)


@dataclass(frozen=True, slots=True)
class Argon2idHash:
    """Argon2id in its standard encoding (RFC 9106)."""

    text: bytes

    def matches(self, password: bytes) -> bool:
        """Return whether the password matches."""
        try:
            return argon2.low_level.verify_secret(self.text, password, argon2.Type.ID)
        except argon2.exceptions.VerificationError:
            return False


@dataclass(frozen=True, slots=True)
class DjangoHash:
    """PBKDF2 with HMAC-SHA-256 (RFC 8018) in the format of Django."""

    iterations: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        """Return whether the password matches."""
        digest = hashlib.pbkdf2_hmac("sha256", password, self.salt, self.iterations)
        return hmac.compare_digest(digest, self.digest)


@dataclass(frozen=True, slots=True)
class WerkzeugHash:
    """scrypt (RFC 7914) in the format of werkzeug.security."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        """Return whether the password matches; False if there is not enough memory."""
        try:
            digest = hashlib.scrypt(
                password, salt=self.salt, n=self.n, r=self.r, p=self.p, maxmem=self._memory()
            )
        except (MemoryError, ValueError):
            return False
        return hmac.compare_digest(digest, self.digest)

    def _memory(self) -> int:
        # As OpenSSL computes it: the table, one block for each lane, and two working blocks.
        return 128 * self.r * (self.n + self.p + 2) + 1024


def check_legacy_hash(text: str, *, field: str = "password_hash") -> None:
    """Raise UnusableHash for a hash that is unsupported, damaged or too costly."""
    read_legacy_hash(text, field=field)


def read_legacy_hash(text: str, *, field: str = "password_hash") -> LegacyHash:
    """Return the parsed hash. Raises UnusableHash."""
    if match := _BCRYPT.fullmatch(text):
        return _bcrypt(match, field)
    # Django writes the name of its hasher before the standard encoding.
    if match := _ARGON2ID.fullmatch(text.removeprefix("argon2")):
        return _argon2id(match, field)
    if match := _DJANGO.fullmatch(text):
        return _django(match, field)
    if match := _WERKZEUG.fullmatch(text):
        return _werkzeug(match, field)
    raise _unsupported(field)


def _bcrypt(match: re.Match[str], field: str) -> LegacyHash:
    cost = int(match[1])
    if cost < BCRYPT_COSTS.start:
        raise _unsupported(field)
    if cost >= BCRYPT_COSTS.stop:
        raise _too_costly(field)
    return BcryptHash(match[0].encode(), cost)


def _argon2id(match: re.Match[str], field: str) -> LegacyHash:
    memory_kib, passes, lanes = int(match[1]), int(match[2]), int(match[3])
    salt, digest = _decoded(match[4], field), _decoded(match[5], field)
    if len(salt) not in ARGON2_SALT_BYTES or len(digest) not in ARGON2_DIGEST_BYTES:
        raise _unsupported(field)
    if memory_kib < 8 * lanes:  # RFC 9106 §3.1: at least eight blocks for each lane.
        raise _unsupported(field)
    work = passes * (memory_kib + lanes * ARGON2_LANE_KIB)
    if memory_kib * 1024 > MAX_MEMORY_BYTES or lanes > MAX_ARGON2_LANES or work > MAX_ARGON2_WORK:
        raise _too_costly(field)
    return Argon2idHash(match[0].encode())


def _django(match: re.Match[str], field: str) -> LegacyHash:
    iterations = int(match[1])
    digest = _decoded(match[3].rstrip("="), field)
    if len(digest) != SHA256_BYTES:
        raise _unsupported(field)
    if iterations > MAX_PBKDF2_ITERATIONS:
        raise _too_costly(field)
    return DjangoHash(iterations, match[2].encode(), digest)


def _werkzeug(match: re.Match[str], field: str) -> LegacyHash:
    n, r, p = int(match[1]), int(match[2]), int(match[3])
    # RFC 7914 §2: N is a power of two above 1 and below 2^(128 r / 8).
    if n < 2 or n & (n - 1) or n.bit_length() > 16 * r:
        raise _unsupported(field)
    # The blocks of the lanes may use a hundredth of the limit, which is more than systems use.
    table, lanes = 128 * r * n, 128 * r * p
    if table > MAX_MEMORY_BYTES or lanes > MAX_MEMORY_BYTES // 100 or n * r * p > MAX_SCRYPT_WORK:
        raise _too_costly(field)
    return WerkzeugHash(n, r, p, match[4].encode(), bytes.fromhex(match[5]))


def _decoded(text: str, field: str) -> bytes:
    """Return the bytes of base64 without padding. Rejects any but the canonical encoding."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as exc:
        raise _unsupported(field) from exc
    if base64.b64encode(raw).rstrip(b"=") != text.encode():
        raise _unsupported(field)
    return raw


def _unsupported(field: str) -> UnusableHash:
    message = "Must be a bcrypt, argon2id, Django pbkdf2_sha256 or werkzeug scrypt hash."
    return UnusableHash([FieldError(field, message, "unsupported_hash")])


def _too_costly(field: str) -> UnusableHash:
    message = (
        "Checking this hash needs more than 64 MiB or the time of bcrypt at cost 14. "
        "Leave the hash out to invite the user."
    )
    return HashTooCostly([FieldError(field, message, "hash_too_costly")])
