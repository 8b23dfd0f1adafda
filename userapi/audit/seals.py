"""Sealing: the worker adds committed audit rows in batches to a chain of MACs.

What it proves and what not. Once a row is sealed, `AuditVerification` detects that rows or seals
were altered, removed or reordered, and that the newest ones were cut off. The worker seals a row
about a second after its commit, unless it has a backlog; a change of the row in this time, made
directly in the database, is not detected. Restoring a complete earlier state (rows, seals, head and
queue) leaves a valid chain: to detect that, each seal is logged, and `flask audit verify --anchor`
compares with a line of the log, which is outside of the database.

No row is missed. A trigger inserts each row into the queue `audit_unsealed` in the row's own
transaction, so the entry becomes visible together with the row, however late it commits and
whatever its `occurred_at`. An entry leaves the queue only in the transaction that seals its row.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.chain import SEALED_COLUMNS, ChainStart, Entry, Head, pack
from userapi.audit.head import SealKeyMissing, SealsBroken, genuine_head, stored_head
from userapi.audit.models import (
    AuditChainStart,
    AuditDailyCount,
    AuditLog,
    AuditSeal,
    AuditSealHead,
    AuditUnsealed,
)
from userapi.audit.seal_keys import SealKeys
from userapi.audit.service import AuditTrail
from userapi.clock import Clock, rfc3339
from userapi.errors import Conflict, invalid_field
from userapi.infrastructure.database import (
    dialect_of,
    excluded,
    keep_to_indexes,
    reading,
    table_of,
    transaction,
    upsert,
)

log = structlog.get_logger(__name__)

ROWS_PER_SEAL = 1000
# Waiting rows are counted up to this number, because counting all of them is slow.
MAX_COUNTED_WAITING = 10_000
MAX_REASON = 500
# How often the worker logs that it cannot seal, for the same reason.
LOG_INTERVAL_SECONDS = 900.0

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_seals = table_of(AuditSeal)
_head = table_of(AuditSealHead)
_counts = table_of(AuditDailyCount)
_starts = table_of(AuditChainStart)

sealed_columns = [_logs.c[name] for name in SEALED_COLUMNS]


class ChainAlreadyBegun(Conflict):
    """Nothing has been sealed since the last new chain began."""

    code = "audit_chain_already_begun"
    title = "A new chain has already begun, and no row has been sealed since."


@dataclass(frozen=True, slots=True, kw_only=True)
class SealState:
    """The newest seal of the chain, and the number of rows that wait for the next."""

    number: int
    sealed_at: datetime | None
    rows_sealed: int
    rows_waiting: int
    all_waiting_counted: bool


class AuditSeals:
    """Adds seals to the chain, in one process at a time: the row of the head is the lock."""

    def __init__(self, *, clock: Clock, keys: SealKeys, trail: AuditTrail) -> None:
        self._clock = clock
        self._keys = keys
        self._trail = trail
        self._obstacle: str | None = None
        self._logged_at = 0.0

    def state(self) -> SealState:
        """Return the state of the chain, without verifying it."""
        newest = select(_seals.c.sealed_at).order_by(_seals.c.number.desc()).limit(1)
        some = select(literal(1)).select_from(_unsealed).limit(MAX_COUNTED_WAITING + 1).subquery()
        with reading() as connection:
            head = connection.execute(select(_head.c.number, _head.c.rows_sealed)).one_or_none()
            waiting = connection.execute(select(func.count()).select_from(some)).scalar_one()
            return SealState(
                number=head.number if head else 0,
                sealed_at=connection.scalar(newest),
                rows_sealed=head.rows_sealed if head else 0,
                rows_waiting=min(waiting, MAX_COUNTED_WAITING),
                all_waiting_counted=waiting <= MAX_COUNTED_WAITING,
            )

    def seal_due(self, limit: int = 10_000) -> int:
        """Seal up to `limit` rows that wait, and return how many; 0 while another process seals.

        Raises SealsBroken if the head is not genuine, and SealKeyMissing if its key is not
        configured: nothing is added to such a chain.
        """
        sealed = 0
        while sealed < limit:
            count = self._seal(min(ROWS_PER_SEAL, limit - sealed))
            if count == 0:
                break
            sealed += count
        return sealed

    def keep_sealing(self) -> int:
        """Seal what waits, for the worker, which continues if sealing is not possible.

        The rows wait then. This is logged when it begins and then every quarter of an hour.
        """
        try:
            sealed = self.seal_due()
        except (SealsBroken, SealKeyMissing) as exc:
            now = time.monotonic()
            if exc.code != self._obstacle or now - self._logged_at >= LOG_INTERVAL_SECONDS:
                self._obstacle, self._logged_at = exc.code, now
                log.error("audit.sealing_stopped", reason=exc.code, detail=exc.detail)
            return 0
        if self._obstacle is not None:
            self._obstacle = None
            log.info("audit.sealing_resumed")
        return sealed

    def begin_chain(self, reason: str, *, actor: Actor) -> ChainStart:
        """Begin a new chain after the last seal, with the current key, and record why.

        For a chain whose key is lost, or whose head is not genuine. Earlier seals are kept;
        missing keys are recorded as lost. Raises Invalid, ChainAlreadyBegun.
        """
        reason = reason.strip()
        if not 1 <= len(reason) <= MAX_REASON or not reason.isprintable():
            raise invalid_field("reason", f"Must have 1 to {MAX_REASON} printable characters.")
        with transaction() as session:
            row = session.execute(
                select(_head).where(_head.c.id == 1).with_for_update()
            ).one_or_none()
            head = Head() if row is None else stored_head(row)
            newest = session.execute(
                select(_seals.c.number, _seals.c.mac).order_by(_seals.c.number.desc()).limit(1)
            ).one_or_none()
            number = max(head.number, newest.number if newest else 0)
            start = ChainStart(
                number=number + 1,
                started_at=self._clock.now(),
                reason=reason,
                former_mac=newest.mac if newest and newest.number == number else head.seal_mac,
                lost_keys=" ".join(self.missing_keys(session)),
                key_id=self._keys.current.key_id,
            )
            if session.execute(select(_starts).where(_starts.c.number == start.number)).first():
                raise ChainAlreadyBegun()
            session.execute(
                insert(_starts).values(**asdict(start), mac=self._keys.current.start_mac(start))
            )
            if row is None:
                session.execute(insert(_head).values(id=1, **asdict(head), mac=""))
            self.save_head(session, replace(head, number=number, seal_mac=""))
            self._trail.record(
                AuditAction.AUDIT_ANCHORED,
                actor=actor,
                details={
                    "reason": reason,
                    "seal": start.number,
                    "former_mac": start.former_mac,
                    "lost_keys": start.lost_keys.split(),
                    "pruned_before": head.pruned_before and rfc3339(head.pruned_before),
                },
            )
        log.warning("audit.anchored", seal=start.number, mac=start.former_mac)
        return start

    def missing_keys(self, connection: Connection | Session) -> list[str]:
        """Return the fingerprints of the keys that the chain needs and that are not configured."""
        missing = set(self._keys.missing(connection))
        head = connection.execute(select(_head)).one_or_none()
        if head is not None:
            try:
                genuine_head(self._keys, connection, head)
            except SealKeyMissing as exc:
                missing.add(exc.key_id)
            except SealsBroken:
                pass  # Another fault, which a verification reports.
        return sorted(missing)

    def _seal(self, limit: int) -> int:
        with reading() as connection:
            # Most passes end here, without a transaction that would lock anything.
            if connection.execute(select(_unsealed.c.audit_id).limit(1)).first() is None:
                return 0
        with transaction() as session:
            head = self.lock_head(session, wait=False)
            if head is None:
                return 0
            keep_to_indexes(session)
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
            gone = [self._keys.current.missing_entry(i) for i in ids if i not in present]
            after = self._add(session, head, [*map(self._keys.current.entry, rows), *gone])
            session.execute(delete(_unsealed).where(_unsealed.c.audit_id.in_(ids)))
            _count(session, rows)
            self.save_head(session, after)
        if gone:
            log.error("audit.rows_missing", seal=after.number, rows=[str(e.id) for e in gone])
        # The anchor: a log outside of the database is not rewritten with it.
        log.info("audit.sealed", seal=after.number, rows=len(ids), mac=after.seal_mac)
        return len(ids)

    def _add(self, session: Session, head: Head, entries: Sequence[Entry]) -> Head:
        number, sealed_at, packed = head.number + 1, self._clock.now(), pack(entries)
        mac = self._keys.current.seal_mac(
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
                key_id=self._keys.current.key_id,
            )
        )
        return replace(
            head, number=number, rows_sealed=head.rows_sealed + len(entries), seal_mac=mac
        )

    def lock_head(self, session: Session, *, wait: bool) -> Head | None:
        """Lock and return the head; None if another process has locked it and `wait` is off.

        Raises SealsBroken, SealKeyMissing.
        """
        row = session.execute(
            select(_head).where(_head.c.id == 1).with_for_update(skip_locked=not wait)
        ).one_or_none()
        if row is None:
            if not wait and session.execute(select(_head.c.id)).first() is not None:
                return None
            raise SealsBroken()
        return genuine_head(self._keys, session, row)

    def save_head(self, session: Session, head: Head) -> None:
        """Store a locked head with its MAC by the current key."""
        chain = self._keys.current
        session.execute(
            update(_head).values(**asdict(head), mac=chain.head_mac(head), key_id=chain.key_id)
        )


def _count(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Add rows to the counts of their days. Each row is counted exactly once."""
    if not rows:
        return
    counted: Counter[tuple[date, str, str]] = Counter(
        (row.occurred_at.date(), row.action, row.outcome) for row in rows
    )
    values = [
        {"day": day, "action": action, "outcome": outcome, "count": count}
        for (day, action, outcome), count in sorted(counted.items())
    ]
    added = {"count": _counts.c.count + excluded(_counts.c.count)}
    session.execute(upsert(dialect_of(session), _counts, values, changes=added))
