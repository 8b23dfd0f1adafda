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
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.orm import Session

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.chain import SEALED_COLUMNS, ChainStart, Entry, Head, pack
from userapi.audit.models import (
    AuditChainStart,
    AuditDailyCount,
    AuditLog,
    AuditSeal,
    AuditSealHead,
    AuditUnsealed,
)
from userapi.audit.seal_keys import UNNAMED, SealKeys
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
MAX_REASON = 500
# How often the worker logs that it cannot seal, as long as nothing changes.
TOLD_EVERY_SECONDS = 900.0

_logs = table_of(AuditLog)
_unsealed = table_of(AuditUnsealed)
_seals = table_of(AuditSeal)
_head = table_of(AuditSealHead)
_counts = table_of(AuditDailyCount)
_starts = table_of(AuditChainStart)

sealed_columns = [_logs.c[name] for name in SEALED_COLUMNS]


class SealsBroken(Conflict):
    """The chain does not fit its head."""

    code = "audit_seals_broken"
    title = "The chain of audit seals is broken. Run `flask audit verify` to find the position."


class SealKeyMissing(Conflict):
    """The chain was sealed with a key that is neither the present one nor a previous one."""

    code = "audit_seal_key_missing"
    title = (
        "The audit log is sealed with a key that is not here. Set AUDIT_SEAL_KEY_PREVIOUS or"
        " ENCRYPTION_KEY_PREVIOUS to it, or begin a new chain with `flask audit anchor`."
    )

    def __init__(self, key_id: str) -> None:
        """`key_id` is the fingerprint of the missing key."""
        super().__init__()
        self.key_id = key_id


class ChainAlreadyBegun(Conflict):
    """Nothing has been sealed since the last new chain began."""

    code = "audit_chain_already_begun"
    title = "A new chain has already begun, and no row has been sealed since."


@dataclass(frozen=True, slots=True, kw_only=True)
class SealState:
    """How far the chain reaches: its newest seal, and how many rows wait for the next."""

    number: int
    sealed_at: datetime | None
    rows_sealed: int
    rows_waiting: int


class AuditSeals:
    """Adds to the chain. One process at a time does: the head's row is the lock."""

    def __init__(self, *, clock: Clock, keys: SealKeys, trail: AuditTrail) -> None:
        self._clock = clock
        self._keys = keys
        self._trail = trail
        self._obstacle: str | None = None
        self._told_at = 0.0

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

        Raises SealsBroken where the head is not genuine, and SealKeyMissing where its key is not
        here: nothing is built on it.
        """
        sealed = 0
        while sealed < limit:
            count = self._seal(min(ROWS_PER_SEAL, limit - sealed))
            if count == 0:
                break
            sealed += count
        return sealed

    def keep_sealing(self) -> int:
        """Do the same for the worker, which goes on where sealing is not possible.

        The rows wait. It is logged when it begins and then every quarter of an hour.
        """
        try:
            sealed = self.seal_due()
        except (SealsBroken, SealKeyMissing) as exc:
            now = time.monotonic()
            if exc.code != self._obstacle or now - self._told_at >= TOLD_EVERY_SECONDS:
                self._obstacle, self._told_at = exc.code, now
                log.error("audit.sealing_stopped", reason=exc.code, detail=exc.detail)
            return 0
        if self._obstacle is not None:
            self._obstacle = None
            log.info("audit.sealing_resumed")
        return sealed

    def begin_chain(self, reason: str, *, actor: Actor) -> ChainStart:
        """Begin a new chain after the last seal, under the present key, and record why.

        For a chain whose key is lost, or whose head does not fit any more. Seals of before are
        kept; keys that are missing are noted as given up. Raises Invalid, ChainAlreadyBegun.
        """
        reason = reason.strip()
        if not 1 <= len(reason) <= MAX_REASON or not reason.isprintable():
            raise invalid_field("reason", f"Must have 1 to {MAX_REASON} printable characters.")
        with transaction() as session:
            row = session.execute(
                select(_head).where(_head.c.id == 1).with_for_update()
            ).one_or_none()
            head = Head() if row is None else _stored_head(row)
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
        """Return the fingerprints of the keys that the chain needs and that are not here."""
        missing = set(self._keys.missing(connection))
        head = connection.execute(select(_head)).one_or_none()
        if head is not None:
            try:
                genuine_head(self._keys, connection, head)
            except SealKeyMissing as exc:
                missing.add(exc.key_id)
            except SealsBroken:
                pass  # Another fault, which a verification finds.
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
        # The anchor: who rewrites the database does not rewrite the log.
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
        """Return the head and keep others from it; None where another holds it and `wait` is off.

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
        """Store a head that is locked, under its MAC by the present key."""
        chain = self._keys.current
        session.execute(
            update(_head).values(**asdict(head), mac=chain.head_mac(head), key_id=chain.key_id)
        )


def genuine_head(keys: SealKeys, connection: Connection | Session, row: Row[Any]) -> Head:
    """Return the head that a row holds. Raises SealsBroken, SealKeyMissing.

    The head of a chain without a seal has no MAC yet, because migrations have no key. One that an
    earlier release wrote does not name its key.
    """
    head = _stored_head(row)
    if head == Head() and row.mac == "":
        return head
    if row.key_id is None:
        if keys.fitting(head, row.mac) is not None:
            return head
        if keys.of_seal(connection, None) is None:
            raise SealKeyMissing(UNNAMED)
        raise SealsBroken()
    chain = keys.named(row.key_id)
    if chain is None:
        raise SealKeyMissing(row.key_id)
    if not hmac.compare_digest(row.mac, chain.head_mac(head)):
        raise SealsBroken()
    return head


def _stored_head(row: Row[Any]) -> Head:
    return Head(**{name: getattr(row, name) for name in Head.__dataclass_fields__})


def _count(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Add rows to the counts of their days. Each row passes here exactly once."""
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
