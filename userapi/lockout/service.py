"""Lockout: how often an identifier, or the codes of a user, may be tried.

One statement counts an attempt before the password is checked, so concurrent attempts get no more
checks than consecutive ones. Identifiers without an account are counted in the same way.
"""

import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from userapi.clock import Clock
from userapi.errors import TooMany
from userapi.infrastructure.database import (
    DIALECTS,
    autocommit,
    dialect_of,
    reading,
    require_transaction,
    table_of,
    upsert,
)
from userapi.lockout.models import LoginAttempt

# A check that started so long ago ended with its process; its attempt is released.
ABANDONED_AFTER = timedelta(seconds=60)
# Identifiers are counted by their HMAC, which never begins like this.
CODE_KEY_PREFIX = "mfa:"
# A code is easier to guess than a password: after this many consecutive failures, each lock of a
# user's codes is a long one (NIST SP 800-63B-4 §3.2.2 allows at most 100).
MAX_CODE_FAILURES = 100
LONG_LOCK = timedelta(hours=24)

_table = table_of(LoginAttempt)


def _reserve_attempt_statement(dialect: str) -> ReturningInsert[str]:
    now: BindParameter[datetime] = bindparam("now", type_=_table.c.last_attempt_at.type)
    abandoned = bindparam("abandoned", type_=_table.c.last_attempt_at.type)
    waiting = case((_table.c.last_attempt_at < abandoned, 0), else_=_table.c.in_flight)
    is_free = or_(_table.c.locked_until.is_(None), _table.c.locked_until <= now)
    values = {
        "identifier_hash": bindparam("key"),
        "failures": 0,
        "in_flight": 1,
        "locks": 0,
        "last_attempt_at": now,
    }
    return upsert(
        dialect,
        _table,
        values,
        changes={"in_flight": waiting + 1, "last_attempt_at": now, "locked_until": None},
        where=is_free & (_table.c.failures + waiting < bindparam("threshold")),
    ).returning(_table.c.identifier_hash)


# Built once: building one takes longer than running it.
_RESERVE_ATTEMPT = {dialect: _reserve_attempt_statement(dialect) for dialect in DIALECTS}


class TooManyAttempts(TooMany):
    """The identifier is locked, or too many passwords are being checked for it now."""

    code = "too_many_attempts"
    title = "Too many attempts. Wait before you try again."


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that has begun. It is the first one, or follows others without a success."""

    until: datetime
    is_first: bool


class Lockout:
    """Counts consecutive failures of each identifier and locks it, longer each time."""

    def __init__(
        self, clock: Clock, *, threshold: int, base_seconds: int, max_seconds: int, secret_key: str
    ) -> None:
        self._clock = clock
        self._threshold = threshold
        self._base = base_seconds
        self._maximum = max_seconds
        self._key = hmac.digest(secret_key.encode(), b"login-attempts", "sha256")

    def key_of(self, identifier: str) -> str:
        """Return the key under which failures of this canonical identifier are counted."""
        text = identifier.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256").hex()

    def key_of_codes(self, user_id: UUID) -> str:
        """Return the key under which wrong codes of second factors of this user are counted."""
        return CODE_KEY_PREFIX + user_id.hex

    def reserve_attempt(self, key: str) -> None:
        """Reserve an attempt before a check. Raises TooManyAttempts if none is left."""
        now = self._clock.now()
        with autocommit() as connection:
            statement = _RESERVE_ATTEMPT[dialect_of(connection)]
            taken = connection.execute(
                statement,
                {
                    "key": key,
                    "now": now,
                    "abandoned": now - ABANDONED_AFTER,
                    "threshold": self._threshold,
                },
            ).first()
        if taken is None:
            until = self.locked_until([key])
            seconds = math.ceil((until - now).total_seconds()) if until else 1
            raise TooManyAttempts(seconds)

    def release_attempt(self, key: str) -> None:
        """Release the attempt of a check that did not fail, in the open transaction."""
        require_transaction().execute(
            update(_table)
            .where(_table.c.identifier_hash == key, _table.c.in_flight > 0)
            .values(in_flight=_table.c.in_flight - 1)
        )

    def fail(self, key: str) -> Lock | None:
        """Count a failure in the open transaction. Return the lock, if it locks."""
        now = self._clock.now()
        session = require_transaction()
        failed = {
            "identifier_hash": key,
            "failures": 1,
            "in_flight": 0,
            "locks": 0,
            "total_failures": 1,
            "last_attempt_at": now,
        }
        changes = {
            "failures": _table.c.failures + 1,
            "total_failures": _table.c.total_failures + 1,
            "in_flight": case((_table.c.in_flight > 0, _table.c.in_flight - 1), else_=literal(0)),
            "last_attempt_at": now,
        }
        statement = upsert(dialect_of(session), _table, failed, changes=changes)
        row = session.execute(
            statement.returning(_table.c.failures, _table.c.locks, _table.c.total_failures)
        ).one()
        if row.failures < self._threshold:
            return None
        until = now + self._duration(key, locks=row.locks, failures=row.total_failures)
        session.execute(
            update(_table)
            .where(_table.c.identifier_hash == key)
            .values(failures=0, locks=row.locks + 1, locked_until=until)
        )
        return Lock(until, is_first=row.locks == 0)

    def _duration(self, key: str, *, locks: int, failures: int) -> timedelta:
        """Return the length of the next lock, after so many locks and failures in a row."""
        usual = timedelta(seconds=min(self._base * 2 ** min(locks, 30), self._maximum))
        if key.startswith(CODE_KEY_PREFIX) and failures >= MAX_CODE_FAILURES:
            return max(usual, LONG_LOCK)
        return usual

    def clear(self, keys: Iterable[str]) -> None:
        """Delete the failures of identifiers, in the open transaction."""
        require_transaction().execute(
            delete(_table).where(_table.c.identifier_hash.in_(list(keys)))
        )

    def locked_until(self, keys: Iterable[str]) -> datetime | None:
        """Return the end of the longest lock of these identifiers, or None."""
        with reading() as connection:
            until: datetime | None = connection.scalar(select(self.longest_lock(keys)))
        return until

    def longest_lock(self, keys: Iterable[str]) -> ColumnElement[datetime | None]:
        """Return the result of `locked_until` as a subquery for another statement."""
        return (
            select(func.max(_table.c.locked_until))
            .where(
                _table.c.identifier_hash.in_(list(keys)),
                _table.c.locked_until > self._clock.now(),
            )
            .scalar_subquery()
        )
