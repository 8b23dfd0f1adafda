"""Sealing: the worker takes committed audit rows in batches into a chain of MACs.

What it shows and what not. Once a row is sealed, altering, removing or reordering rows or seals,
and cutting off the newest ones, is found by `AuditVerification`. Between a row's commit and its
seal lies one pass of the worker, about a second while it runs and keeps up; who can write to the
database past the service may change a row unnoticed in that window. And who brings back the whole
of an earlier state (rows, seals, head and queue) leaves a chain that fits: against that each seal
is logged, and `flask audit verify --anchor` compares with a line of the log, which lies outside of
the database.

No row is missed. A trigger puts each row into the queue `audit_unsealed` in the row's own
transaction, so the entry becomes visible exactly when the row does, however late that commits and
whatever its `occurred_at`. An entry leaves the queue only in the transaction that seals its row.
"""

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

import structlog
from sqlalchemy import Row, Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from userapi.audit.chain import SEALED_COLUMNS, Chain, Entry, Head, pack
from userapi.audit.models import (
    AuditDailyCount,
    AuditLog,
    AuditSeal,
    AuditSealHead,
    AuditUnsealed,
)
from userapi.clock import Clock
from userapi.database import reading, transaction
from userapi.errors import Conflict

log = structlog.get_logger(__name__)

ROWS_PER_SEAL = 1000

_logs: Table = AuditLog.__table__  # type: ignore[assignment]
_unsealed: Table = AuditUnsealed.__table__  # type: ignore[assignment]
_seals: Table = AuditSeal.__table__  # type: ignore[assignment]
_head: Table = AuditSealHead.__table__  # type: ignore[assignment]
_counts: Table = AuditDailyCount.__table__  # type: ignore[assignment]

sealed_columns = [_logs.c[name] for name in SEALED_COLUMNS]


class SealsBroken(Conflict):
    """The chain does not fit its head, or was made with another key."""

    code = "audit_seals_broken"
    title = "The chain of audit seals is broken; `flask audit verify` tells where."


@dataclass(frozen=True, slots=True, kw_only=True)
class SealState:
    """How far the chain reaches: its newest seal, and how many rows wait for the next."""

    number: int
    sealed_at: datetime | None
    rows_sealed: int
    rows_waiting: int


class AuditSeals:
    """Adds to the chain. One process at a time does: the head's row is the lock."""

    def __init__(self, *, clock: Clock, chain: Chain) -> None:
        self._clock = clock
        self._chain = chain

    def state(self) -> SealState:
        """Return how far the chain reaches. Whether it is whole, only a verification tells."""
        newest = select(_seals.c.sealed_at).order_by(_seals.c.number.desc()).limit(1)
        with reading() as connection:
            head = connection.execute(select(_head.c.number, _head.c.rows_sealed)).one_or_none()
            return SealState(
                number=head.number if head else 0,
                sealed_at=connection.scalar(newest),
                rows_sealed=head.rows_sealed if head else 0,
                rows_waiting=connection.scalar(select(func.count()).select_from(_unsealed)) or 0,
            )

    def seal_due(self, limit: int = 10_000) -> int:
        """Seal up to `limit` rows that wait, and return how many; 0 while another process seals.

        Raises SealsBroken where the head is not genuine: nothing is built on it.
        """
        sealed = 0
        while sealed < limit:
            count = self._seal(min(ROWS_PER_SEAL, limit - sealed))
            if count == 0:
                break
            sealed += count
        return sealed

    def _seal(self, limit: int) -> int:
        with reading() as connection:
            # Most passes end here, without a transaction that would lock anything.
            if connection.execute(select(_unsealed.c.audit_id).limit(1)).first() is None:
                return 0
        with transaction() as session:
            head = self.lock_head(session, wait=False)
            if head is None:
                return 0
            ids = list(
                session.scalars(
                    select(_unsealed.c.audit_id).order_by(_unsealed.c.audit_id).limit(limit)
                )
            )
            if not ids:
                return 0
            rows = session.execute(
                select(*sealed_columns)
                .where(_logs.c.id.in_(ids))
                .order_by(_logs.c.occurred_at, _logs.c.id)
            ).all()
            present = {row.id for row in rows}
            gone = [self._chain.missing_entry(i) for i in ids if i not in present]
            after = self._add(session, head, [*map(self._chain.entry, rows), *gone])
            session.execute(delete(_unsealed).where(_unsealed.c.audit_id.in_(ids)))
            _count(session, rows)
            self.save_head(session, after)
        if gone:
            log.error("audit.rows_missing", seal=after.number, rows=[str(e.id) for e in gone])
        # The anchor: who rewrites the database does not rewrite the log.
        log.info("audit.sealed", seal=after.number, rows=len(ids), mac=after.seal_mac)
        return len(ids)

    def _add(self, session: Session, head: Head, entries: Sequence[Entry]) -> Head:
        number, sealed_at, packed = head.number + 1, self._clock.now(), pack(entries)
        mac = self._chain.seal_mac(
            number=number, sealed_at=sealed_at, previous_mac=head.seal_mac, entries=packed
        )
        session.execute(
            insert(_seals).values(
                number=number,
                sealed_at=sealed_at,
                first_id=entries[0].id,
                last_id=entries[-1].id,
                earliest_at=min(entry.occurred_at for entry in entries),
                latest_at=max(entry.occurred_at for entry in entries),
                row_count=len(entries),
                entries=packed,
                previous_mac=head.seal_mac,
                mac=mac,
            )
        )
        return replace(
            head, number=number, rows_sealed=head.rows_sealed + len(entries), seal_mac=mac
        )

    def lock_head(self, session: Session, *, wait: bool) -> Head | None:
        """Return the head and keep others from it; None where another holds it and `wait` is off.

        Raises SealsBroken.
        """
        row = session.execute(
            select(_head).where(_head.c.id == 1).with_for_update(skip_locked=not wait)
        ).one_or_none()
        if row is None:
            if not wait and session.execute(select(_head.c.id)).first() is not None:
                return None
            raise SealsBroken()
        head = genuine_head(self._chain, row)
        if head is None:
            log.error("audit.seals_broken", seal=row.number)
            raise SealsBroken()
        return head

    def save_head(self, session: Session, head: Head) -> None:
        """Store a head that is locked, under its MAC."""
        session.execute(update(_head).values(**asdict(head), mac=self._chain.head_mac(head)))


def genuine_head(chain: Chain, row: Row[Any]) -> Head | None:
    """Return the head that a row holds, or None where its MAC does not fit.

    The head of a chain without a seal has no MAC yet, because migrations have no key.
    """
    head = Head(**{name: getattr(row, name) for name in Head.__dataclass_fields__})
    if head == Head() and row.mac == "":
        return head
    return head if hmac.compare_digest(row.mac, chain.head_mac(head)) else None


def _count(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Add rows to the counts of their days. Each row passes here exactly once."""
    if not rows:
        return
    counted: Counter[tuple[date, str, str]] = Counter(
        (row.occurred_at.date(), row.action, row.outcome) for row in rows
    )
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    statement = (postgresql.insert if is_postgresql else sqlite.insert)(_counts)
    session.execute(
        statement.values(
            [
                {"day": day, "action": action, "outcome": outcome, "count": count}
                for (day, action, outcome), count in sorted(counted.items())
            ]
        ).on_conflict_do_update(
            index_elements=[_counts.c.day, _counts.c.action, _counts.c.outcome],
            set_={"count": _counts.c.count + statement.excluded.count},
        )
    )
