"""Secrets of authenticator apps at rest: encrypted under ENCRYPTION_KEY.

Each is bound to its user and its factor: a row that is copied to another user cannot be decrypted.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from userapi.infrastructure.encryption import EncryptionKeys

PURPOSE = "totp-secret"


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """An encrypted secret, and the fingerprint of the key that encrypted it."""

    text: bytes
    key_id: str

    @property
    def columns(self) -> dict[str, Any]:
        """Return the values of the columns that store the secret."""
        return {"sealed_secret": self.text, "key_id": self.key_id}


class TotpSecrets:
    """Encrypts and decrypts the secrets of authenticator apps."""

    def __init__(self, encryption: EncryptionKeys) -> None:
        self._encryption = encryption

    @property
    def readable_key_ids(self) -> frozenset[str]:
        """Return the fingerprints of the keys that decrypt."""
        return self._encryption.known_ids

    @property
    def current_key_id(self) -> str:
        """Return the fingerprint of the key that encrypts."""
        return self._encryption.current_id

    def seal(self, secret: str, *, user_id: UUID, factor_id: UUID) -> SealedSecret:
        """Return the secret, encrypted with the current key."""
        text = self._encryption.seal(secret.encode(), PURPOSE, _bound_to(user_id, factor_id))
        return SealedSecret(text, self._encryption.current_id)

    def open_sealed(self, text: bytes, *, user_id: UUID, factor_id: UUID) -> str:
        """Return the secret. Raises SealedValueUnreadable."""
        bound_to = _bound_to(user_id, factor_id)
        return self._encryption.open_sealed(text, PURPOSE, bound_to).decode()

    def reseal(
        self, text: bytes, secret: str, *, user_id: UUID, factor_id: UUID
    ) -> SealedSecret | None:
        """Return the secret under the current key; None if that key encrypted `text`."""
        if self._encryption.is_sealed_by_current(text):
            return None
        return self.seal(secret, user_id=user_id, factor_id=factor_id)


def _bound_to(user_id: UUID, factor_id: UUID) -> bytes:
    return f"{user_id}:{factor_id}".encode()
