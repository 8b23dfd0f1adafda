"""Writing and reading the audit trail."""

import heapq
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Row,
    Select,
    and_,
    insert,
    literal,
    select,
    tuple_,
)

from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditLog
from userapi.clock import Clock, rfc3339
from userapi.infrastructure.database import (
    cte_parameters,
    insert_cte,
    new_id,
    reading,
    require_transaction,
    table_of,
    transaction,
)
from userapi.infrastructure.export import ExportFormat, export_pieces
from userapi.infrastructure.network_addresses import former_spellings
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey
from userapi.permissions import Permission

MASK = "***"
# Words in the name of a field whose value nobody may read in the audit log.
SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|passcode|secret|token|credential|authorization|cookie"
    r"|(api|access|private|signing|encryption).?key|(^|[_.-])(hash|pin|otp)$",
    re.IGNORECASE,
)
USER_AGENT_LENGTH = 512
ROWS_PER_CHUNK = 1000

_table = table_of(AuditLog)
_INSERT = insert(_table)

Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows are wanted; what is None does not filter. The address is a canonical one."""

    actor_id: UUID | None = None
    target_id: str | None = None
    action: AuditAction | None = None
    outcome: Outcome | None = None
    ip_address: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditTrail:
    """The record of who did what. Rows are only ever added."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def record(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row to the open transaction. `target` is a type and an id."""
        row = self._row(
            action, actor=actor, target=target, outcome=outcome, changes=changes, details=details
        )
        require_transaction().connection().execute(_INSERT, row)

    def parameters(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object],
    ) -> dict[str, Any]:
        """Return the parameters of a statement that contains `audit_cte`."""
        return cte_parameters(_table, self._row(action, actor=actor, target=target))

    def _row(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None,
        outcome: Outcome = Outcome.SUCCESS,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            "id": new_id(),
            "occurred_at": self._clock.now(),
            "action": action,
            "outcome": outcome,
            "actor_id": actor.id,
            "actor_username": actor.username,
            "actor_type": actor.type,
            "session_id": actor.session_id,
            "target_type": target[0] if target else None,
            "target_id": str(target[1]) if target else None,
            "ip_address": actor.ip_address,
            "user_agent": (actor.user_agent or "")[:USER_AGENT_LENGTH] or None,
            "correlation_id": actor.correlation_id,
            "changes": _masked(changes) if changes else None,
            "details": _plain(details) if details else None,
        }

    def record_all(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        about: Mapping[tuple[str, object], Mapping[str, Any] | None],
    ) -> None:
        """Add a row for each target, with its details, to the open transaction by one statement."""
        if not about:
            return
        require_transaction().execute(
            _INSERT,
            [
                self._row(action, actor=actor, target=target, details=details)
                for target, details in about.items()
            ],
        )

    def record_alone(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row in a transaction of its own: nothing else changed."""
        with transaction():
            self.record(action, actor=actor, target=target, outcome=outcome, details=details)


def audit_cte(source: FromClause, **taken: ColumnElement[Any]) -> Insert:
    """Return what adds a row for each row of `source`, as a part of another statement.

    Columns in `taken` come from there, all others from `AuditTrail.parameters`.
    """
    return insert_cte(_table, source, names=_table.c.keys(), **taken)


def matching(wanted: AuditFilter) -> Select[Any]:
    """Return the query for the rows that `wanted` describes, without an order."""
    query: Select[Any] = select(_table)
    for column, value in (
        (_table.c.actor_id, wanted.actor_id),
        (_table.c.target_id, wanted.target_id),
        (_table.c.action, wanted.action),
        (_table.c.outcome, wanted.outcome),
        (_table.c.ip_address, wanted.ip_address),
        (_table.c.correlation_id, wanted.correlation_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(_table.c.occurred_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_table.c.occurred_at < wanted.until)
    return query


def _spellings(connection: Connection, wanted: AuditFilter) -> list[str]:
    """Return every spelling of the wanted address, if rows have another one than the canonical.

    Rows are never changed, so those of earlier releases keep theirs.
    """
    former = former_spellings(wanted.ip_address) if wanted.ip_address else ()
    query = select(literal(1)).where(_table.c.ip_address.in_(former)).limit(1)
    if not former or wanted.ip_address is None or connection.execute(query).first() is None:
        return []
    return [wanted.ip_address, *former]


def involves_user(user_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions for what a user did, and for what was done to them."""
    return (
        _table.c.actor_id == user_id,
        and_(_table.c.target_type == "user", _table.c.target_id == str(user_id)),
    )


def _masked(changes: Changes) -> dict[str, list[Any]]:
    return {
        field: [_without_secrets(field, _plain(old)), _without_secrets(field, _plain(new))]
        for field, (old, new) in changes.items()
    }


def _without_secrets(name: str, value: Any) -> Any:
    """Return a value with every secret in it masked, at any depth.

    Whether there is one at all, and switches such as `must_change_password`, are no secrets.
    """
    if value is None or isinstance(value, bool):
        return value
    if SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _without_secrets(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets("", item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


class AuditReader:
    """Reads the trail; that it was read is recorded, too."""

    def __init__(self, *, trail: AuditTrail, cursor_key: str) -> None:
        self._trail = trail
        self._paginator = Paginator(
            secret=cursor_key,
            name="audit",
            keys={"occurred_at": SortKey(_table.c.occurred_at)},
            default_sort="-occurred_at",
            tie_breaker=_table.c.id,
        )

    def page(self, wanted: AuditFilter, page: PageRequest, *, actor: Actor) -> Page[Row[Any]]:
        """Return the wanted part, newest first. Raises as `Paginator.page` does."""
        with reading() as connection:
            spellings = _spellings(connection, wanted)
            query = matching(replace(wanted, ip_address=None) if spellings else wanted)
            found = self._paginator.page(
                connection,
                query,
                page,
                filters=asdict(wanted),
                item=lambda row: row,
                either=[_table.c.ip_address == spelling for spelling in spellings],
            )
        self._record_reading(wanted, actor)
        return found

    def all_about(self, user_id: UUID, *, actor: Actor) -> Iterator[Mapping[str, Any]]:
        """Return every row about a user, the oldest first, for themselves.

        Memory does not grow with their number. What can fail at once fails here and not in the
        iterator.
        """
        did, suffered = involves_user(user_id)
        by_others = and_(suffered, _table.c.actor_id.is_distinct_from(user_id))
        # Two walks, each along an index of its own: one with OR would sort all rows for each chunk.
        walks = []
        for query in (select(_table).where(did), select(_table).where(by_others)):
            first = _read_chunk(_oldest_first(query))
            walks.append(chain.from_iterable(_chunks(first, query, descending=False)))
        self._trail.record_alone(AuditAction.USER_EXPORTED, actor=actor, target=("user", user_id))
        rows = heapq.merge(*walks, key=lambda row: (row.occurred_at, row.id))
        return map(_item_for(user_id, actor), rows)

    def export(self, wanted: AuditFilter, form: ExportFormat, *, actor: Actor) -> Iterator[bytes]:
        """Return all wanted rows as a file in pieces, newest first; memory does not grow with it.

        What can fail at once fails here and not in the iterator: the reading is recorded and the
        first chunk is read before this returns.
        """
        self._record_reading(wanted, actor, export=str(form))
        with reading() as connection:
            spellings = _spellings(connection, wanted)
        query = matching(replace(wanted, ip_address=None) if spellings else wanted)
        if spellings:
            query = query.where(_table.c.ip_address.in_(spellings))
        chunks = _chunks(_read_chunk(_newest_first(query)), query, descending=True)
        return export_pieces(
            ([row._mapping for row in chunk] for chunk in chunks),  # type: ignore[misc]
            columns=_table.c.keys(),
            form=form,
        )

    def activity(
        self, user_id: UUID, page: PageRequest, *, actor: Actor
    ) -> Page[Mapping[str, Any]]:
        """Return the wanted part of what a user did and what was done to them, newest first.

        Reading it about somebody else is recorded. To the users themselves others who acted are
        shown by name alone: where those were and with what is not theirs to know.
        """
        with reading() as connection:
            found = self._paginator.page(
                connection,
                select(_table),
                page,
                filters={"activity": user_id},
                item=_item_for(user_id, actor),
                either=involves_user(user_id),
            )
        if not actor.is_user(user_id):
            # Without a target, or each reading would be a new entry of what is read.
            self._trail.record_alone(
                AuditAction.AUDIT_READ, actor=actor, details={"activity_of": str(user_id)}
            )
        return found

    def _record_reading(self, wanted: AuditFilter, actor: Actor, **more: str) -> None:
        filters = {n: str(value) for n, value in asdict(wanted).items() if value is not None}
        self._trail.record_alone(AuditAction.AUDIT_READ, actor=actor, details=filters | more)


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(_table.c.occurred_at.desc(), _table.c.id.desc())


def _oldest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(_table.c.occurred_at, _table.c.id)


def _chunks(
    first: Sequence[Row[Any]], query: Select[Any], *, descending: bool
) -> Iterator[Sequence[Row[Any]]]:
    """Yield chunk after chunk by keyset; no connection is held while one is sent."""
    key = tuple_(_table.c.occurred_at, _table.c.id)
    chunk = first
    while chunk:
        yield chunk
        if len(chunk) < ROWS_PER_CHUNK:
            return
        last = tuple_(
            literal(chunk[-1].occurred_at, _table.c.occurred_at.type),
            literal(chunk[-1].id, _table.c.id.type),
        )
        following = (
            _newest_first(query.where(key < last))
            if descending
            else _oldest_first(query.where(key > last))
        )
        chunk = _read_chunk(following)


def _read_chunk(query: Select[Any]) -> Sequence[Row[Any]]:
    with reading() as connection:
        return connection.execute(query.limit(ROWS_PER_CHUNK)).all()


def _item_for(user_id: UUID, reader: Actor) -> Callable[[Row[Any]], Mapping[str, Any]]:
    """Return what makes a row of a user's activity into what the reader may know."""
    sees_all = Permission.AUDIT_READ in reader.permissions

    def item(row: Row[Any]) -> Mapping[str, Any]:
        shown = dict(row._mapping)
        if not sees_all and row.actor_type != ActorType.ANONYMOUS and row.actor_id != user_id:
            shown |= {"ip_address": None, "user_agent": None, "session_id": None}
        return shown

    return item
