"""Encrypting all secrets of authenticator apps again, after ENCRYPTION_KEY has changed."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from userapi.factors.models import TotpFactor
from userapi.factors.totp_secrets import TotpSecrets
from userapi.infrastructure.database import autocommit, reading, table_of
from userapi.infrastructure.encryption import RotationResult, SealedValueUnreadable, reseal_all

BATCH = 500

_table = table_of(TotpFactor)


class SecretRotation:
    """Encrypts secrets with the current key. Repeating it changes nothing."""

    def __init__(self, secrets: TotpSecrets) -> None:
        self._secrets = secrets

    def rotate(self, *, progress: Callable[[int], object] = lambda n: None) -> RotationResult:
        """Encrypt every secret that a former key encrypts.

        `progress` receives the number of secrets in each batch. Each secret is one statement, which
        changes nothing if a log-in has encrypted the secret meanwhile.
        """
        return reseal_all(self._next_rows, self._reseal, progress=progress)

    def count_outdated(self, connection: Connection) -> int:
        """Return how many secrets a former or unknown key encrypts."""
        query = select(func.count()).where(_table.c.key_id != self._secrets.current_key_id)
        return int(connection.execute(query).scalar_one())

    def count_unreadable(self, connection: Connection) -> int:
        """Return how many secrets need a key that is not configured."""
        query = select(func.count()).where(
            _table.c.key_id.not_in(list(self._secrets.readable_key_ids))
        )
        return int(connection.execute(query).scalar_one())

    def _next_rows(self, last: Row[Any] | None) -> Sequence[Row[Any]]:
        query: Select[Any] = (
            select(_table.c.id, _table.c.user_id, _table.c.sealed_secret)
            .where(_table.c.key_id != self._secrets.current_key_id)
            .order_by(_table.c.id)
            .limit(BATCH)
        )
        if last is not None:
            query = query.where(_table.c.id > last.id)
        with reading() as connection:
            return connection.execute(query).all()

    def _reseal(self, row: Row[Any]) -> bool:
        """Encrypt a secret with the current key; return whether a key decrypts it."""
        try:
            secret = self._secrets.open_sealed(
                row.sealed_secret, user_id=row.user_id, factor_id=row.id
            )
        except SealedValueUnreadable:
            return False
        sealed = self._secrets.seal(secret, user_id=row.user_id, factor_id=row.id)
        with autocommit() as connection:
            connection.execute(
                update(_table)
                .where(_table.c.id == row.id, _table.c.sealed_secret == row.sealed_secret)
                .values(sealed.columns)
            )
        return True
