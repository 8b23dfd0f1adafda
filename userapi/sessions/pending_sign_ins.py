"""Sign-ins whose first step has succeeded and whose second step is missing, by their mfa_token.

The token is opaque and in no table: only its SHA-256 is. A sign-in that ends is deleted, so
unknown, used, expired and voided tokens are treated alike.
"""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, insert, select, update

from userapi.clock import Clock
from userapi.infrastructure.database import new_id, reading, require_transaction, table_of
from userapi.sessions.models import PendingSignIn

TOKEN_BYTES = 32
MAX_PER_USER = 10
MAX_FAILURES = 5

_table = table_of(PendingSignIn)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSignIn:
    """A pending sign-in. `lockout_key` counts the failures of the identifier that was typed."""

    id: UUID
    user_id: UUID
    lockout_key: str
    amr: tuple[str, ...]
    remember_me: bool
    failures: int

    @property
    def tries_left(self) -> int:
        """Return how many further failures end the sign-in."""
        return MAX_FAILURES - self.failures


class PendingSignIns:
    """Opens, finds and ends pending sign-ins."""

    def __init__(self, clock: Clock, *, lifetime: timedelta) -> None:
        self._clock = clock
        self._lifetime = lifetime

    @property
    def lifetime(self) -> timedelta:
        """Return how long an mfa_token is valid."""
        return self._lifetime

    def open(
        self, user_id: UUID, *, lockout_key: str, amr: Sequence[str], remember_me: bool
    ) -> str:
        """Open a sign-in in the open transaction, which holds the lock on the user's row.

        Returns its token. Above `MAX_PER_USER` the oldest sign-in of the user ends.
        """
        session = require_transaction()
        now = self._clock.now()
        surplus = session.scalars(
            select(_table.c.id)
            .where(_table.c.user_id == user_id)
            .order_by(_table.c.created_at.desc(), _table.c.id.desc())
            .offset(MAX_PER_USER - 1)
        ).all()
        if surplus:
            session.execute(delete(_table).where(_table.c.id.in_(surplus)))
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session.execute(
            insert(_table),
            {
                "id": new_id(),
                "user_id": user_id,
                "token_hash": _digest(token),
                "lockout_key": lockout_key,
                "amr": " ".join(amr),
                "remember_me": remember_me,
                "failures": 0,
                "created_at": now,
                "expires_at": now + self._lifetime,
            },
        )
        return token

    def find(self, token: str) -> OpenSignIn | None:
        """Return the sign-in of a token, or None if it is unknown or has ended."""
        with reading() as connection:
            row = connection.execute(self._query(token)).one_or_none()
        return None if row is None else _open_sign_in(row)

    def lock(self, token: str) -> OpenSignIn | None:
        """Return the sign-in of a token, locked. The open transaction has locked the user's row."""
        row = require_transaction().execute(self._query(token).with_for_update()).one_or_none()
        return None if row is None else _open_sign_in(row)

    def fail(self, sign_in: OpenSignIn) -> None:
        """Count a failed second step of a locked sign-in; the last one ends it."""
        if sign_in.tries_left <= 1:
            self.end(sign_in)
            return
        require_transaction().execute(
            update(_table).where(_table.c.id == sign_in.id).values(failures=_table.c.failures + 1)
        )

    def end(self, sign_in: OpenSignIn) -> None:
        """End a locked sign-in, whose token is void from then on."""
        require_transaction().execute(delete(_table).where(_table.c.id == sign_in.id))

    def _query(self, token: str) -> Select[Any]:
        return select(_table).where(
            _table.c.token_hash == _digest(token), _table.c.expires_at > self._clock.now()
        )


def end_sign_ins_of(user_ids: Collection[UUID]) -> None:
    """End every pending sign-in of these users, in the open transaction."""
    require_transaction().execute(delete(_table).where(_table.c.user_id.in_(list(user_ids))))


def end_every_sign_in() -> None:
    """End every pending sign-in of every user, in the open transaction."""
    require_transaction().execute(delete(_table))


def _open_sign_in(row: Row[Any]) -> OpenSignIn:
    return OpenSignIn(
        id=row.id,
        user_id=row.user_id,
        lockout_key=row.lockout_key,
        amr=tuple(row.amr.split()),
        remember_me=row.remember_me,
        failures=row.failures,
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
