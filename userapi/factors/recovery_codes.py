"""Recovery codes: ten one-time codes for a user who has lost the other factors.

A code has 80 random bits. Only a bcrypt hash is stored (OWASP ASVS 5.0 §6.5.2); the codes of one
set share its salt, so that a try costs one hash and not ten.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import bcrypt
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update
from sqlalchemy.orm import Session

from userapi.factors.models import RecoveryCode
from userapi.infrastructure.database import new_id, reading, require_transaction, table_of
from userapi.passwords.hashing_pool import HashingPool

CODES = 10
CHARACTERS = 16
GROUP = 4
# Crockford's base32, and the characters that people read as others of it.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ALIASES = str.maketrans("oil", "011")

_table = table_of(RecoveryCode)


@dataclass(frozen=True, slots=True)
class NewCodes:
    """A new set of codes: their texts, which are shown once, and what is stored of them."""

    texts: tuple[str, ...]
    salt: str
    hashes: tuple[str, ...]


class RecoveryCodes:
    """Generates, stores and accepts recovery codes."""

    def __init__(self, *, pool: HashingPool, rounds: int) -> None:
        """`rounds` is the bcrypt cost: codes are random, so less than a password's is enough."""
        self._pool = pool
        self._rounds = rounds

    def generate(self) -> NewCodes:
        """Return a new set, which is not stored yet. No transaction is open. Raises Busy."""
        plain = ["".join(secrets.choice(ALPHABET) for _ in range(CHARACTERS)) for _ in range(CODES)]
        salt = bcrypt.gensalt(self._rounds).decode()
        return NewCodes(
            texts=tuple(_grouped(code) for code in plain),
            salt=salt,
            # Each waits for its turn, so that log-ins run in between.
            hashes=tuple(self._hash(code, salt) for code in plain),
        )

    def store(self, user_id: UUID, codes: NewCodes, *, now: datetime) -> None:
        """Replace all codes of a locked user, in the open transaction."""
        self.delete(user_id)
        require_transaction().execute(
            insert(_table),
            [
                {
                    "id": new_id(),
                    "user_id": user_id,
                    "salt": codes.salt,
                    "code_hash": code_hash,
                    "created_at": now,
                }
                for code_hash in codes.hashes
            ],
        )

    def delete(self, user_id: UUID) -> int:
        """Delete all codes of a locked user; return how many were left unused."""
        session = require_transaction()
        left = unused_codes(session, user_id)
        session.execute(delete(_table).where(_table.c.user_id == user_id))
        return left

    def hash_of(self, user_id: UUID, text: str) -> str | None:
        """Return the hash of a typed code with the salt of the user's set; None without a set.

        No transaction is open: this takes as long as a hash. Raises Busy.
        """
        plain = plain_code(text)
        if plain is None:
            return None
        query = select(_table.c.salt).where(_table.c.user_id == user_id).limit(1)
        with reading() as connection:
            salt: str | None = connection.execute(query).scalar_one_or_none()
        return None if salt is None else self._hash(plain, salt)

    def use(self, user_id: UUID, code_hash: str, *, now: datetime) -> bool:
        """Mark the code with this hash as used; return whether it was unused.

        One statement: of concurrent calls with the same code, one returns True.
        """
        used = require_transaction().execute(
            update(_table)
            .where(_is_code(user_id, code_hash), _table.c.used_at.is_(None))
            .values(used_at=now)
            .returning(_table.c.id)
        )
        return used.first() is not None

    def exists(self, user_id: UUID, code_hash: str) -> bool:
        """Return whether the user has the code with this hash, used or not."""
        query = select(_table.c.id).where(_is_code(user_id, code_hash))
        return require_transaction().execute(query).first() is not None

    def _hash(self, plain: str, salt: str) -> str:
        return self._pool.run(lambda: bcrypt.hashpw(plain.encode(), salt.encode())).decode()


def unused_codes(connection: Connection | Session, user_id: UUID) -> int:
    """Return how many unused codes a user has."""
    query = select(func.count()).where(_table.c.user_id == user_id, _table.c.used_at.is_(None))
    return int(connection.execute(query).scalar_one())


def plain_code(text: str) -> str | None:
    """Return a typed code as it is hashed, or None if it has another form.

    Case, hyphens and blanks do not matter; o is read as 0, and i and l as 1 (Crockford).
    """
    if not text.isascii():
        return None
    plain = "".join(text.replace("-", " ").split()).lower().translate(_ALIASES)
    return plain if len(plain) == CHARACTERS and set(plain) <= set(ALPHABET) else None


def _grouped(plain: str) -> str:
    return "-".join(plain[start : start + GROUP] for start in range(0, CHARACTERS, GROUP))


def _is_code(user_id: UUID, code_hash: str) -> ColumnElement[bool]:
    return and_(_table.c.user_id == user_id, _table.c.code_hash == code_hash)
