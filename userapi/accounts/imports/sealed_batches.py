"""Batches of rows that wait for the worker, encrypted under ENCRYPTION_KEY."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
from sqlalchemy import select

from userapi.accounts.imports.job_models import batches_table
from userapi.errors import FieldError
from userapi.infrastructure.database import reading
from userapi.infrastructure.encryption import EncryptionKeys

if TYPE_CHECKING:
    from userapi.accounts.imports.rows import Row

PURPOSE = "import-rows"


class SealedBatches:
    """Encrypts and decrypts batches. A batch is bound to its job and number."""

    def __init__(self, encryption: EncryptionKeys) -> None:
        self._encryption = encryption

    @property
    def current_prefix(self) -> bytes:
        """Return the first bytes of every batch that the current key encrypts."""
        return self._encryption.current_prefix

    def seal(self, import_id: UUID, number: int, rows: "Sequence[Row]") -> bytes:
        """Return the rows, encrypted."""
        plain = orjson.dumps(
            [
                [row.number, row.values, [[e.field, e.message, e.code] for e in row.errors]]
                for row in rows
            ]
        )
        return self._encryption.seal(plain, PURPOSE, _bound_to(import_id, number))

    def open_sealed(self, import_id: UUID, number: int, sealed: bytes) -> "list[Row]":
        """Return the rows of an encrypted batch. Raises SealedValueUnreadable."""
        # Imports the checks of rows, which `flask encryption rotate` and `flask doctor` do not use.
        from userapi.accounts.imports.rows import Row

        plain = self._encryption.open_sealed(sealed, PURPOSE, _bound_to(import_id, number))
        return [
            Row(row, values, tuple(FieldError(*error) for error in errors))
            for row, values, errors in orjson.loads(plain)
        ]


def find_sealed(import_id: UUID, number: int) -> bytes | None:
    """Return the encrypted batch with this number, if there is one."""
    query = select(batches_table.c.sealed).where(
        batches_table.c.import_id == import_id, batches_table.c.number == number
    )
    with reading() as connection:
        sealed: bytes | None = connection.execute(query).scalar_one_or_none()
    return sealed


def _bound_to(import_id: UUID, number: int) -> bytes:
    return f"{import_id}:{number}".encode()
