"""Encrypting the batches of waiting imports again, after ENCRYPTION_KEY has changed."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, tuple_, update

from userapi.accounts.imports.job_models import batches_table
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.infrastructure.database import autocommit, reading
from userapi.infrastructure.encryption import RotationResult, SealedValueUnreadable, reseal_all

# A batch has up to 250 rows, so only a few are read at a time.
AT_A_TIME = 20


class BatchRotation:
    """Encrypts batches with the current key. Repeating it changes nothing."""

    def __init__(self, batches: SealedBatches) -> None:
        self._batches = batches

    def rotate(self, *, progress: Callable[[int], object] = lambda n: None) -> RotationResult:
        """Encrypt every batch that a former key encrypts.

        `progress` receives the number of batches read. Each batch is one statement, which changes
        nothing if the worker has imported the batch meanwhile.
        """
        return reseal_all(self._next_rows, self._reseal, progress=progress)

    def count_outdated(self, connection: Connection) -> int:
        """Return how many batches a former or unknown key encrypts."""
        query = select(func.count()).select_from(batches_table).where(self._is_outdated())
        return int(connection.execute(query).scalar_one())

    def _is_outdated(self) -> ColumnElement[bool]:
        prefix = self._batches.current_prefix
        return func.substr(batches_table.c.sealed, 1, len(prefix)) != prefix

    def _next_rows(self, last: Row[Any] | None) -> Sequence[Row[Any]]:
        key = tuple_(batches_table.c.import_id, batches_table.c.number)
        query = select(batches_table).where(self._is_outdated()).order_by(*key).limit(AT_A_TIME)
        if last is not None:
            query = query.where(key > tuple_(last.import_id, last.number))
        with reading() as connection:
            return connection.execute(query).all()

    def _reseal(self, row: Row[Any]) -> bool:
        """Encrypt a batch with the current key; return whether a key decrypts it."""
        try:
            rows = self._batches.open_sealed(row.import_id, row.number, row.sealed)
        except SealedValueUnreadable:
            return False
        with autocommit() as connection:
            connection.execute(
                update(batches_table)
                .where(
                    batches_table.c.import_id == row.import_id,
                    batches_table.c.number == row.number,
                    batches_table.c.sealed == row.sealed,
                )
                .values(sealed=self._batches.seal(row.import_id, row.number, rows))
            )
        return True
