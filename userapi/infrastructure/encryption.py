"""Encryption of small values at rest, under ENCRYPTION_KEY.

AES-256-GCM with a subkey for each purpose (HKDF-SHA256, RFC 5869), so that a value encrypted for
one purpose cannot be decrypted for another. An encrypted value names its key: values under a key
of ENCRYPTION_KEY_PREVIOUS are decrypted, and a missing key is reported as such, not as damage.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from userapi.errors import Unavailable

FORMAT = b"\x01"
KEY_ID_BYTES = 8
NONCE_BYTES = 12
_HEADER_BYTES = len(FORMAT) + KEY_ID_BYTES

Value = TypeVar("Value")


class SealedValueUnreadable(Unavailable):
    """An encrypted value cannot be decrypted."""


class EncryptionKeyMissing(SealedValueUnreadable):
    """Neither ENCRYPTION_KEY nor ENCRYPTION_KEY_PREVIOUS contains the key of the value."""

    def __init__(self, key_id: str) -> None:
        """`key_id` is the fingerprint of the missing key."""
        super().__init__()
        self.key_id = key_id


class SealedValueDamaged(SealedValueUnreadable):
    """The value was changed, or encrypted for another purpose or with other associated data."""


class EncryptionKeys:
    """Encrypts with ENCRYPTION_KEY; decrypts with it and with ENCRYPTION_KEY_PREVIOUS."""

    def __init__(self, key: str, *, previous: Sequence[str] = ()) -> None:
        self._key = key.encode()
        self._id = key_id(key)
        self._keys = {bytes.fromhex(key_id(k)): k.encode() for k in (*previous, key)}

    @property
    def current_id(self) -> str:
        """Return the fingerprint of the key that encrypts."""
        return self._id

    @property
    def known_ids(self) -> frozenset[str]:
        """Return the fingerprints of all keys that decrypt."""
        return frozenset(key.hex() for key in self._keys)

    def seal(self, plaintext: bytes, purpose: str, associated: bytes = b"") -> bytes:
        """Return `plaintext` encrypted for the purpose and with the associated data."""
        header = FORMAT + bytes.fromhex(self._id)
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = AESGCM(_subkey(self._key, purpose))
        return header + nonce + cipher.encrypt(nonce, plaintext, header + associated)

    def open_sealed(self, sealed: bytes, purpose: str, associated: bytes = b"") -> bytes:
        """Return the plaintext. Raises EncryptionKeyMissing, SealedValueDamaged."""
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        if len(header) < _HEADER_BYTES or not header.startswith(FORMAT):
            raise SealedValueDamaged()
        key = self._keys.get(header[len(FORMAT) :])
        if key is None:
            raise EncryptionKeyMissing(header[len(FORMAT) :].hex())
        cipher = AESGCM(_subkey(key, purpose))
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], header + associated)
        except (InvalidTag, ValueError) as exc:  # ValueError: too short to hold a nonce.
            raise SealedValueDamaged() from exc

    @property
    def current_prefix(self) -> bytes:
        """Return the first bytes of every value that the current key encrypts."""
        return FORMAT + bytes.fromhex(self._id)

    def is_sealed_by_current(self, sealed: bytes) -> bool:
        """Return whether the current key encrypted the value. If not, encrypt it again."""
        return sealed.startswith(self.current_prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationResult:
    """How many values the current key encrypts now, and how many no key decrypts."""

    resealed: int
    unreadable: int


def reseal_all(
    next_values: Callable[[Value | None], Sequence[Value]],
    reseal: Callable[[Value], bool],
    *,
    progress: Callable[[int], object],
) -> RotationResult:
    """Encrypt stored values with the current key, some at a time.

    `next_values` returns those that follow a value, and the first ones for None. `reseal` returns
    whether a key decrypts the value. `progress` receives how many were read.
    """
    resealed = unreadable = 0
    last = None
    while values := next_values(last):
        for value in values:
            if reseal(value):
                resealed += 1
            else:
                unreadable += 1
        progress(len(values))
        last = values[-1]
    return RotationResult(resealed=resealed, unreadable=unreadable)


def key_id(secret: str) -> str:
    """Return the fingerprint of a secret: 16 hexadecimal digits that do not reveal it."""
    return derive(secret.encode(), "key-id", length=KEY_ID_BYTES).hex()


def derive(secret: bytes, purpose: str, *, length: int = 32) -> bytes:
    """Return key material for a purpose, independent of that for any other (HKDF-SHA256)."""
    info = b"userapi:1:" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def _subkey(secret: bytes, purpose: str) -> bytes:
    return derive(secret, f"encryption:{purpose}")
