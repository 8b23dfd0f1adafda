"""Challenges of passkeys that contain their own state, encrypted.

A challenge names its purpose, what it is bound to, and its time of issue. Only a used challenge is
stored, so options cost no row, and several tabs can have options at the same time.
"""

import secrets
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import sha256
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.clock import Clock
from userapi.factors.models import UsedChallenge
from userapi.infrastructure.database import dialect_of, insert_for, table_of
from userapi.infrastructure.encryption import EncryptionKeys, SealedValueUnreadable

LIFETIME = timedelta(seconds=300)
# A used challenge is kept for longer than any server accepts it, however far their clocks differ.
KEPT = 2 * LIFETIME

SEALED_FOR = "webauthn-challenge"
# Purpose, the id of a session or a sign-in, microseconds since 1970, random bytes.
_CONTENT = struct.Struct(">B16sQ16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
NOTHING = UUID(int=0)

_table = table_of(UsedChallenge)


class Purpose(IntEnum):
    """What a challenge may be answered for. The numbers are part of issued challenges."""

    SIGN_IN = 1
    SECOND_STEP = 2
    STEP_UP = 3
    REGISTRATION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """A purpose and what it is bound to: a session, a pending sign-in, or nothing."""

    purpose: Purpose
    bound_to: UUID = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A challenge that this service has issued."""

    value: bytes
    ceremony: Ceremony
    issued_at: datetime


class Challenges:
    """Issues challenges, reads them, and records those that are used."""

    def __init__(self, *, encryption: EncryptionKeys, clock: Clock) -> None:
        self._encryption = encryption
        self._clock = clock

    def issue(self, ceremony: Ceremony) -> bytes:
        """Return a new challenge for the ceremony. Nothing is stored."""
        age = (self._clock.now() - _EPOCH) // _MICROSECOND
        content = _CONTENT.pack(
            ceremony.purpose, ceremony.bound_to.bytes, age, secrets.token_bytes(16)
        )
        return self._encryption.seal(content, SEALED_FOR)

    def read(self, value: bytes) -> Challenge | None:
        """Return a challenge that this service has issued, of any age; None for any other value."""
        try:
            content = self._encryption.open_sealed(value, SEALED_FOR)
        except SealedValueUnreadable:
            return None
        purpose, bound_to, age, _ = _CONTENT.unpack(content)
        return Challenge(
            value=value,
            ceremony=Ceremony(purpose=Purpose(purpose), bound_to=UUID(bytes=bound_to)),
            issued_at=_EPOCH + age * _MICROSECOND,
        )

    def is_fresh(self, challenge: Challenge) -> bool:
        """Return whether a challenge is at most 300 seconds old."""
        return self._clock.now() - challenge.issued_at <= LIFETIME

    def use(self, session: Session, challenge: Challenge) -> bool:
        """Record a challenge as used in the open transaction; return False if it was used before.

        A concurrent use waits for the end of this transaction.
        """
        statement = (
            insert_for(dialect_of(session), _table)
            .values(
                challenge_hash=sha256(challenge.value).hexdigest(),
                expires_at=challenge.issued_at + KEPT,
            )
            .on_conflict_do_nothing()
            .returning(_table.c.challenge_hash)
        )
        return session.execute(statement).first() is not None
